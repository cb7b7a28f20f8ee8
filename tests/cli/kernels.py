# SPDX-License-Identifier: GPL-2.0-or-later
"""Small kernels made byte by byte, in each of the forms that boot. The code is the same bytes in 32- and 64-bit mode."""
import gzip
import struct

HANG = b"\xfa\xf4\xeb\xfd"  # cli; again: hlt; jmp again
POWER_OFF = b"\x66\xba\x04\x06\x66\xb8\x00\x20\x66\xef" + HANG  # S5 through the power management's control register
FLOOD = b"\x66\xba\xf8\x03\xb0x\xee\xeb\xfd"  # the serial line, without end


def say(text):
    """Text on the first serial line."""
    return b"\x66\xba\xf8\x03" + b"".join(b"\xb0" + bytes([c]) + b"\xee" for c in text.encode())


def multiboot(code, at=0x100000):
    """A Multiboot 1 header with addresses, then code."""
    flags, size = 1 << 16, 32 + len(code)
    return struct.pack("<8I", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF, at, at, at + size, at + size,
                       at + 32) + code


def pvh(code, at=0x100000):
    """A 32-bit ELF file with Xen's note of the entry point; the code comes last."""
    note = struct.pack("<3I4sI", 4, 4, 18, b"Xen\0", at)
    headers = 52 + 2 * 32
    elf = struct.pack("<4s5B7x2H5I6H", b"\x7fELF", 1, 1, 1, 0, 0, 2, 3, 1, at, 52, 0, 0, 52, 32, 2, 0, 0, 0)
    elf += struct.pack("<8I", 4, headers, 0, 0, len(note), len(note), 4, 4)
    elf += struct.pack("<8I", 1, headers + len(note), at, at, len(code), len(code), 5, 1)
    return elf + note + code


def elf64(code, at):
    elf = struct.pack("<4s5B7x2HI3QI6H", b"\x7fELF", 2, 1, 1, 0, 0, 2, 62, 1, at, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return elf + struct.pack("<2I6Q", 1, 5, 120, at, at, len(code), len(code), 1) + code


def bzimage(code, at=0x1000000):
    """A Linux bzImage whose packed kernel reaches to the end of the file."""
    payload = gzip.compress(elf64(code + bytes(range(256)) * 40, at), 1)
    offset = 64
    code_part = bytes(offset) + payload
    header = bytearray(1024)
    for where, form, value in ((0x1F1, "B", 1), (0x1F4, "I", (len(code_part) + 15) // 16), (0x1FE, "H", 0xAA55),
                               (0x200, "H", 0x6AEB), (0x202, "4s", b"HdrS"), (0x206, "H", 0x20F), (0x211, "B", 1),
                               (0x214, "I", 0x100000), (0x22C, "I", 0x7FFFFFFF), (0x230, "I", 0x200000), (0x234, "B", 1),
                               (0x235, "B", 21), (0x236, "H", 3), (0x238, "I", 2047), (0x248, "I", offset),
                               (0x24C, "I", len(payload)), (0x258, "Q", at), (0x260, "I", 0x200000)):
        struct.pack_into("<" + form, header, where, value)
    return bytes(header) + code_part
