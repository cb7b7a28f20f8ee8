#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# run.sh NAME...: runs the programs of the benchmark in the folder that holds it and the inputs, the same in a guest as on
# the host, and prints a line "NAME NANOSECONDS CHECKSUM NANOSECONDS" for each, as the suite does.
set -eu
export LC_ALL=C.UTF-8 HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd "$(dirname "$0")"

nanoseconds() {
    local now=$EPOCHREALTIME
    echo "${now/[.,]/}000"
}

say() {
    echo "$1 $2 $3 $2"
}

# timed NAME COMMAND...: the checksum is that of what it prints.
timed() {
    local name=$1 begin end
    shift
    begin=$(nanoseconds)
    "$@" >output 2>errors || {
        echo "$name failed:"
        cat errors
        exit 1
    }
    end=$(nanoseconds)
    say "$name" $((end - begin)) "$(sha256sum <output | cut -c 1-16)"
}

# `openssl speed` finds out itself how much it can do in a second; its figure is turned into the time for one operation.
# speed NAME AWK-EXPRESSION ARGUMENT...
speed() {
    local name=$1 expression=$2
    shift 2
    openssl speed -mr -seconds 1 "$@" 2>/dev/null >output
    say "$name" "$(awk -F: "/^\\+F/ { printf \"%.3f\", $expression; exit }" output)" -
}

forks() {
    local i
    for ((i = 0; i < 300; i++)); do
        /bin/true
        echo "$(echo $i)" | cat
    done
}

compile() {
    gcc -O2 -w -c -o object source.c
    cat object
}

debs() {
    apt-get -q -y --no-download -o APT::Sandbox::User=root -o Dpkg::Options::=--force-unsafe-io install ./*.deb >/dev/null
    dpkg -l 'bench-*' | tail -n 3 | awk '{ print $1, $2 }'
}

run() {
    case "$1" in
    gzip) timed gzip gzip -6nc text ;;
    gunzip) timed gunzip gzip -dc text.gz text.gz text.gz text.gz ;;
    xz) timed xz xz -T1 -3c text.quarter ;;
    unxz) timed unxz xz -dc text.xz text.xz ;;
    zstd) timed zstd zstd -q --single-thread -9c text ;;
    sha256sum) timed sha256sum sha256sum text text text ;;
    openssl-aes-gcm) speed "$1" '1e12 / $4' -bytes 16384 -evp aes-128-gcm ;;
    openssl-chacha20) speed "$1" '1e12 / $4' -bytes 16384 -evp chacha20-poly1305 ;;
    openssl-sha256) speed "$1" '1e12 / $4' -bytes 16384 -evp sha256 ;;
    openssl-rsa2048) speed "$1" '1e9 / $4' rsa2048 ;;
    python3) timed python3 python3 work.py ;;
    perl) timed perl perl work.pl text.quarter ;;
    sqlite3) timed sqlite3 sqlite3 :memory: ".read work.sql" ;;
    gcc) timed gcc compile ;;
    shell-forks) timed shell-forks forks ;;
    apt-install) timed apt-install debs ;;
    *) echo "run.sh: no program '$1'"; exit 1 ;;
    esac
}

# Neither the disk nor unpacking shall be measured with the programs.
prepare() {
    find /usr/bin /usr/lib/gcc /usr/lib/x86_64-linux-gnu /usr/lib/python3* /usr/share/perl -type f -print0 |
        xargs -0 cat >/dev/null
    head -c $(($(stat -c %s text) / 4)) text >text.quarter
    gzip -1nc text >text.gz
    xz -T1 -0c text.quarter >text.xz
}

prepare
echo "begin $(nanoseconds)"
for name; do
    run "$name"
done
echo "end $(nanoseconds)"
