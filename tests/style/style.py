#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of the source tree that a compiler does not know: which folder may include which, and how files look.

usage: style.py [TOP]

Prints each breach as FILE:LINE: what is wrong; exit status 1 when there is one.
"""
import os
import re
import subprocess
import sys

# Folder below src -> what it may include. A folder may always include itself; a name with ".h" is that one header.
MAY_INCLUDE = {
    "base": [],
    "os": ["base"],
    "x86": ["base"],
    "core": ["base", "os", "x86"],
    "engine/bt": ["base", "os", "x86", "core"],
    "engine/kvm": ["base", "os", "x86", "core"],
    "block": ["base", "os"],
    "net": ["base", "os"],
    "display": ["base", "os"],
    "device": ["base", "os", "x86", "core", "block/block.h", "net/net.h", "display/display.h"],
    "snapshot": ["base", "os", "x86", "core", "block"],
    "jail": ["base", "os"],
    "vmm": ["base", "os", "x86", "core", "engine/bt", "engine/kvm", "block", "net", "display", "device", "snapshot",
            "jail"],
    "catalog": ["base", "os"],
    "cli": ["base", "os", "catalog"],
}

# An instruction takes a line of its own, so assembly is longer than C that does as much.
MAX_LINES = {".c": 800, ".h": 800, ".py": 800, ".S": 1200, ".asm": 1200}

# What stays out of the source, and why. The patterns are written so that they do not match themselves.
BANNED = [
    (re.compile(r"\b(TO[D]O|FIX[M]E|XX[X]|HAC[K])\b"), "do it now or say it in an issue"),
    (re.compile(r"(?<![\w.])/(wor[k]|hom[e])/"), "a path of one machine"),
]
# Functions that C code does not call.
UNSAFE = re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|gets|alloca|atoi|atol|tmpnam|mktemp|system)\s*\(")
# Folders that run on a guest's behalf: nothing in them ends the process, but where a comment on the same line says why no
# guest can get there.
ENDS_PROCESS = re.compile(r"(?<![\w.>])(abort|exit|_exit|_Exit|quick_exit)\s*\(")
GUEST_FOLDERS = ("core", "x86", "engine", "block", "net", "device")

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def folder_of(path):
    """The entry of MAY_INCLUDE that a path below src belongs to, or None."""
    parts = path.split("/")
    for depth in (2, 1):
        name = "/".join(parts[:depth])
        if len(parts) > depth and name in MAY_INCLUDE:
            return name
    return None


def check_includes(path, lines):
    """`path` is relative to src."""
    own = folder_of(path)
    if own is None:
        yield 1, f"src/{path} is in no folder that the layering knows"
        return
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        header = match.group(1)
        target = folder_of(header)
        if target is None:
            yield number, f'include "{header}" by its path from src'
        elif target != own and target not in MAY_INCLUDE[own] and header not in MAY_INCLUDE[own]:
            yield number, f'src/{own} may not include "{header}"'


def code_only(line):
    """The line without strings and one-line comments, so that words in them are not taken for calls."""
    line = re.sub(r'"(\\.|[^"\\])*"', '""', line)
    line = re.sub(r"/\*.*?(\*/|$)", "", line)
    return "" if line.lstrip().startswith("* ") else line


def check_c(path, lines):
    """`path` is relative to the top."""
    for number, line in enumerate(lines, 1):
        code = code_only(line)
        if "\t" in line:
            yield number, "tab"
        if path.startswith("src/") and UNSAFE.search(code):
            yield number, f"unsafe function: {UNSAFE.search(code).group(1)}"
        if path.startswith("src/") and path.split("/")[1] in GUEST_FOLDERS and ENDS_PROCESS.search(code) \
                and "/*" not in line:
            yield number, "ends the process without a word on why no guest can get there"
    if path.endswith((".c", ".h")) and not any(line.startswith("/*") and "SPDX" not in line for line in lines[:6]):
        yield 1, "no comment at the top says what the file is for"


def check_text(path, lines):
    """Rules for every text file. `lines` are without their newlines."""
    for number, line in enumerate(lines, 1):
        if line != line.rstrip():
            yield number, "white space at the end of the line"
        for pattern, why in BANNED:
            if pattern.search(line):
                yield number, f"'{pattern.search(line).group(0)}': {why}"
    if wants_spdx(path) and not any("SPDX-License-Identifier: GPL-2.0-or-later" in line for line in lines[:3]):
        yield 1, "no SPDX line"
    most = MAX_LINES.get(os.path.splitext(path)[1])
    if most and len(lines) > most:
        yield most, f"{len(lines)} lines: more than {most}, so it holds two subjects"


def wants_spdx(path):
    name = os.path.basename(path)
    if path.startswith("tests/fuzz/corpus/"):
        return False
    return name.endswith((".c", ".h", ".in", ".py", ".sh", ".S", ".asm", ".build")) or path == "dev" or \
        path.startswith(("scripts/", "src/cli/recipes/", ".ci/run"))


def check_file(path, data):
    """Yields (line, what) for every breach in one file, given its path from the top and its bytes."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    if text and not text.endswith("\n"):
        yield text.count("\n") + 1, "no newline at the end"
    lines = text.split("\n")[:-1] if text.endswith("\n") else text.split("\n")
    yield from check_text(path, lines)
    if path.endswith((".c", ".h")):
        yield from check_c(path, lines)
        if path.startswith("src/"):
            yield from check_includes(path[len("src/"):], lines)


def files_of(top):
    """What git tracks or would track, so that a new file is checked before its first commit."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    out = subprocess.run(command, cwd=top, check=True, stdout=subprocess.PIPE).stdout
    for name in out.decode().split("\0"):
        path = os.path.join(top, name)
        if name and name != "COPYING" and not name.startswith("tests/fuzz/corpus/") and os.path.isfile(path):
            yield name


def main():
    top = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    count = breaches = 0
    for name in files_of(top):
        count += 1
        with open(os.path.join(top, name), "rb") as f:
            data = f.read()
        for line, what in check_file(name, data):
            breaches += 1
            print(f"{name}:{line}: {what}")
    print(f"{count} files, {breaches} breaches")
    return 1 if breaches or not count else 0


if __name__ == "__main__":
    sys.exit(main())
