#!/bin/sh
# Lays the jars of the Apache Kafka named in kafka/pom.xml down in .cache/kafka/<version>/libs of the workspace, through
# Maven, and prints that folder. Does nothing where they already are.
set -eu
here=$(CDPATH='' cd "$(dirname "$0")" && pwd)
root=$(CDPATH='' cd "$here/../.." && pwd)
pom="$here/kafka/pom.xml"
version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$pom")
home="$root/.cache/kafka/$version"

# The pom beside the jars says what they were made from.
complete() { cmp -s "$pom" "$home/pom.xml"; }

if ! complete; then
    # Built aside and renamed: two runs at once must not see each other's half.
    staging="$home.$$"
    trap 'rm -rf "$staging"' EXIT
    mkdir -p "$staging"
    mvn --quiet --batch-mode -Dstyle.color=never -f "$pom" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$staging/libs" >&2
    cp "$pom" "$staging/pom.xml"
    complete || { rm -rf "$home" && mv "$staging" "$home"; }
fi
echo "$home/libs"
