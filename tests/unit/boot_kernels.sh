#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# boot_kernels.sh PROGRAM: fetches Debian's kernel for cloud machines and memtest86+ (once; they are kept in the user's
# cache) and runs PROGRAM on their boot images.
set -eu

program=$1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ruche-tests
mkdir -p "$cache"
cd "$cache"

fail() {
    echo "boot_kernels: $*" >&2
    exit 1
}

# fetch PACKAGE: its files below ./PACKAGE
fetch() {
    [ -d "$1" ] && return
    part=$(mktemp -d "$cache/part.XXXXXX")
    (cd "$part" && apt-get download -q "$1" >log 2>&1) || fail "cannot download package $1: $(tail -n 1 "$part/log")"
    dpkg-deb --extract "$part/$1"_*.deb "$part/files"
    mv "$part/files" "$1" 2>/dev/null || [ -d "$1" ]
    rm -rf "$part"
}

image=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
[ -n "$image" ] || fail "apt knows no linux-image-cloud-amd64 (apt-get update?)"
fetch "$image"
fetch memtest86+
exec "$program" "$image"/boot/vmlinuz-* memtest86+/boot/memtest86+x64.bin memtest86+/boot/memtest86+ia32.bin
