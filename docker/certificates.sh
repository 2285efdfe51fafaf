#!/bin/sh
# certificates.sh FOLDER: what docker/compose.tls.yaml mounts, made anew: an authority for the services and one for the broker, what they
# have signed, and a password. The keys of the authorities are thrown away: to change anything, run it again and start the stack anew.
set -eu
folder=$1
umask 022
mkdir -p "$folder"
# Containers read the files as users of their own; on this machine nobody else gets as far as the folder.
chmod 700 "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2> "$work/said"; }

authority() { # NAME
    new_key "$work/$1-ca.key"
    openssl req -x509 -new -key "$work/$1-ca.key" -days 365 -subj "/CN=tidegate $1" -out "$folder/$1-ca.crt" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
}

issue() { # NAME HOSTS: for servers and clients
    new_key "$folder/$1.key"
    openssl req -new -key "$folder/$1.key" -subj "/CN=$1" -out "$work/$1.csr"
    printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$2" > "$work/$1.ext"
    openssl x509 -req -in "$work/$1.csr" -days 365 -CA "$folder/$1-ca.crt" -CAkey "$work/$1-ca.key" -CAcreateserial \
        -CAserial "$work/$1.serial" -extfile "$work/$1.ext" -out "$folder/$1.crt" 2> "$work/said"
}

authority services
issue services DNS:coordinator-0,DNS:coordinator-1,DNS:worker-0,DNS:worker-1,DNS:worker-2,DNS:localhost,IP:127.0.0.1
authority kafka
issue kafka DNS:kafka,DNS:localhost
# As Kafka wants it: key and chain in one file.
cat "$folder/kafka.key" "$folder/kafka.crt" "$folder/kafka-ca.crt" > "$folder/kafka.pem"
rm "$folder/kafka.key"
chmod 644 "$folder/services.key"

password=$(openssl rand -hex 24)
jaas="org.apache.kafka.common.security.plain.PlainLoginModule required user_tidegate=\"$password\";"
printf '%s\n' "KAFKA_LISTENER_NAME_SECURE_PLAIN_SASL_JAAS_CONFIG=$jaas" \
    "KAFKA_LISTENER_NAME_OUTSIDE_PLAIN_SASL_JAAS_CONFIG=$jaas" > "$folder/kafka.env"
printf '%s\n' security.protocol=sasl_ssl ssl.ca.location=/run/secrets/kafka-ca.crt \
    sasl.mechanism=PLAIN sasl.username=tidegate "sasl.password=$password" > "$folder/kafka.properties"
