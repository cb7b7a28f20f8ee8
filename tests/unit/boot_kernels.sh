#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# boot_kernels.sh PROGRAM: fetches Debian's kernel for cloud machines and memtest86+ (once; they are kept in the user's
# cache) and runs PROGRAM on their boot images.
set -eu

program=$(readlink -f "$1")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ruche-tests
mkdir -p "$cache"
cd "$cache"

fail() {
    echo "boot_kernels: $*" >&2
    exit 1
}

# Asks the mirror for its lists of packages, into a place of our own: needs no privileges, harms nobody's apt.
own_lists() {
    mkdir -p "$cache/apt/partial"
    printf 'Dir::State::Lists "%s/apt";\nDir::Cache "%s/apt";\nDir::Cache::Archives "";\nAPT::Sandbox::User "root";\n' \
        "$cache" "$cache" >"$cache/apt.conf"
    export APT_CONFIG="$cache/apt.conf"
    apt-get update -q >"$cache/apt.log" 2>&1 || fail "apt-get update: $(tail -n 1 "$cache/apt.log")"
}

# download PACKAGE: into the current folder
download() {
    apt-get download -q "$1" >log 2>&1
}

# fetch PACKAGE: its files below ./PACKAGE
fetch() {
    [ -d "$1" ] && return
    part=$(mktemp -d "$cache/part.XXXXXX")
    cd "$part"
    # The machine's lists may be older than what the mirror has.
    download "$1" || { own_lists && download "$1"; } || fail "cannot download package $1: $(tail -n 1 log)"
    cd "$cache"
    dpkg-deb --extract "$part/$1"_*.deb "$part/files"
    mv "$part/files" "$1" 2>/dev/null || [ -d "$1" ]
    rm -rf "$part"
}

kernel_package() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1
}

image=$(kernel_package)
if [ -z "$image" ]; then
    own_lists
    image=$(kernel_package)
fi
[ -n "$image" ] || fail "apt knows no linux-image-cloud-amd64"
fetch "$image"
fetch memtest86+
exec "$program" "$image"/boot/vmlinuz-* memtest86+/boot/memtest86+x64.bin memtest86+/boot/memtest86+ia32.bin
