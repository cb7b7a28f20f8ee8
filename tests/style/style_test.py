#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The style rules refuse what they should and accept what they should."""
import unittest

import style

SPDX = "/* SPDX-License-Identifier: GPL-2.0-or-later */\n"
HEAD = SPDX + "/* What it is for. */\n"


def breaches(path, text):
    return [what for _, what in style.check_file(path, text.encode())]


class Includes(unittest.TestCase):
    def test_allowed(self):
        for path, header in [("src/os/a.c", "base/error.h"), ("src/core/a.c", "x86/state.h"),
                             ("src/device/pci/a.c", "block/block.h"), ("src/engine/bt/a.c", "engine/bt/b.h"),
                             ("src/cli/a.c", "catalog/image.h"), ("src/vmm/a.c", "device/pci/pci.h")]:
            self.assertEqual(breaches(path, HEAD + f'#include "{header}"\n'), [], (path, header))

    def test_refused(self):
        for path, header in [("src/base/a.c", "os/sys.h"), ("src/core/a.c", "device/pci/pci.h"),
                             ("src/device/a.c", "block/qcow2.h"), ("src/device/a.c", "engine/bt/b.h"),
                             ("src/engine/kvm/a.c", "engine/bt/b.h"), ("src/cli/a.c", "vmm/board.h"),
                             ("src/catalog/a.c", "block/block.h"), ("src/cli/a.c", "verb.h"),
                             ("src/block/a.c", "core/memory.h")]:
            self.assertEqual(len(breaches(path, HEAD + f'#include "{header}"\n')), 1, (path, header))

    def test_unknown_folder(self):
        self.assertTrue(breaches("src/misc/a.c", HEAD))


class Looks(unittest.TestCase):
    def test_clean(self):
        self.assertEqual(breaches("src/base/a.c", HEAD + "int x; /* exit() in a comment */\n"), [])

    def test_each_rule(self):
        for path, text in [
                ("src/base/a.c", HEAD + "int x; \n"),
                ("src/base/a.c", HEAD + "\tint x;\n"),
                ("src/base/a.c", HEAD + "int x;"),
                ("src/base/a.c", HEAD + "/* TO" + "DO */\n"),
                ("src/base/a.c", HEAD + 'char *p = "/ho' + 'me/me";\n'),
                ("src/base/a.c", HEAD + "    strcpy(a, b);\n"),
                ("src/device/a.c", HEAD + "    abort();\n"),
                ("src/engine/bt/a.c", HEAD + "    exit(1);\n"),
                ("src/base/a.c", "/* What it is for. */\n"),
                ("src/base/a.c", SPDX + "int x;\n"),
                ("src/base/a.c", HEAD + "int x;\n" * 800),
                ("tests/a.S", SPDX + "nop\n" * 1200),
                ("tests/a.py", "print()\n"),
                ("dev", "#!/bin/sh\n")]:
            self.assertEqual(len(breaches(path, text)), 1, (path, text[-60:], breaches(path, text)))


unittest.main()
