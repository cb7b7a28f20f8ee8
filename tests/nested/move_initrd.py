#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the initial RAM disk of move.sh's guest. Usage: move_initrd.py FILE"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../system"))
import initramfs  # noqa: E402

BODY = """export PATH=/bin
dd if=/dev/urandom of=/tmp/data bs=1024 count=512 2>/dev/null
first=$(sha256sum </tmp/data)
(
    while sum=$(sha256sum </tmp/data); do
        [ "$sum" = "$first" ] && echo "sum good" || echo "sum bad"
        sleep 1
    done
) &
i=1
while true; do
    echo "count $i"
    i=$((i + 1))
    sleep 0.1
done
"""

if __name__ == "__main__":
    initramfs.make(sys.argv[1], BODY)
