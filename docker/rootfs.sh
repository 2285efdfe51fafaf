#!/bin/sh
# rootfs.sh PROGRAMS ROOT: lays out in ROOT the smallest root file system in which the programs run: the one of the folder PROGRAMS
# that is all four, and their names as links to it.
set -eu
programs=$1 root=$2

install -d "$root/usr/local/bin" "$root/usr/share/doc/tidegate" "$root/etc"
install --strip "$programs/tidegate-all" "$root/usr/local/bin/tidegate"
for program in ingest watermark-coordinator window-worker; do
    ln -s tidegate "$root/usr/local/bin/$program"
done
install -m 644 LICENSE "$root/usr/share/doc/tidegate/LICENSE"

# Each library that is linked, and the loader, at the path where the loader looks for it.
ldd "$root/usr/local/bin/tidegate" |
    awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' | sort -u |
    while read -r library; do install -D -m 755 "$library" "$root$library"; done

# The authorities of the public Internet, for brokers whose certificates they have signed.
install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"

printf 'tidegate:x:65532:65532::/var/lib/tidegate:/\n' > "$root/etc/passwd"
printf 'tidegate:x:65532:\n' > "$root/etc/group"
printf 'hosts: files dns\n' > "$root/etc/nsswitch.conf"
install -d -o 65532 -g 65532 "$root/var/lib/tidegate"
