#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# boot_kernels.sh PROGRAM: runs PROGRAM on the boot images of Debian's kernel for cloud machines and of memtest86+.
set -eu

fetch=$(dirname "$0")/../debian-package
kernel=$("$fetch" linux-image-cloud-amd64)
memtest=$("$fetch" memtest86+)
exec "$1" "$kernel"/boot/vmlinuz-* "$memtest/boot/memtest86+x64.bin" "$memtest/boot/memtest86+ia32.bin"
