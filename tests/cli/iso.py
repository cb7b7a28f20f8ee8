# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads volumes of ISO 9660."""
import struct


def read_iso(path):
    """Label and files of a volume, by its Joliet directory (Joliet Specification; ECMA-119, 8 and 9)."""
    with open(path, "rb") as f:
        data = f.read()
    sectors = [data[at:at + 2048] for at in range(16 * 2048, len(data), 2048)]
    label = sectors[0][40:72].decode().rstrip()
    joliet = next(s for s in sectors if s[0] == 2 and s[1:6] == b"CD001")
    where, size = struct.unpack_from("<I4xI", joliet, 156 + 2)
    files, at = {}, where * 2048
    while at < where * 2048 + size and data[at]:
        start, length = struct.unpack_from("<I4xI", data, at + 2)
        name = data[at + 33:at + 33 + data[at + 32]]
        if len(name) > 1:
            files[name.decode("utf-16-be").removesuffix(";1")] = data[start * 2048:start * 2048 + length].decode()
        at += data[at]
    return label, files
