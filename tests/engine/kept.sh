#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# kept.sh PROGRAM ARGUMENT...: runs it under engine bt three times with one folder for kept translations: one that
# is empty, one that is full, and one in which every file has been damaged. None of it may make a difference.
set -eu
folder=$(mktemp -d)
trap 'rm -rf --one-file-system "$folder"' EXIT
trap 'exit 1' INT TERM
program=$1
shift
for what in empty full damaged; do
    echo "kept translations: $what"
    if [ "$what" = damaged ]; then
        python3 -c '
import random, sys
random.seed(1)
for path in sys.argv[1:]:
    with open(path, "r+b") as f:
        data = bytearray(f.read())
        for at in range(4096, len(data), 499):
            data[at] ^= 1 << random.randrange(8)
        f.seek(0)
        f.write(data)
' "$folder"/*
    fi
    "$program" --engine "bt,cache=$folder" "$@"
done
# That nothing at all was kept would be no test.
[ "$(find "$folder" -type f -size +4200k | wc -l)" = 1 ] || { echo "nothing was kept"; exit 1; }
