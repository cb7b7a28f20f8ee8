#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`ruche snapshot` on machines that do not run, and what it refuses: the tree, names, layers, wrong words."""
import json
import os
import subprocess
import unittest

from harness import RECIPE, Case, contents, table


class Snapshots(Case):
    def setUp(self):
        super().setUp()
        self.write("recipes/small", RECIPE, 0o755)
        self.ruche("image", "build", "small")
        self.ruche("create", "web", "small")
        self.web = json.loads(self.ruche("inspect", "--json", "web")[0])[0]["folder"]

    def snapshots(self):
        return json.loads(self.ruche("snapshot", "ls", "--json", "web")[0])

    def layers(self):
        return {name for name in os.listdir(self.web) if name.endswith(".qcow2")}

    def refused(self, *words, status=125):
        """Gives the reason; nothing has changed."""
        before = contents(self.web)
        err = self.one_line(self.ruche("snapshot", *words, status=status)[1])
        self.assertEqual(contents(self.web), before)
        return err

    def test_tree(self):
        self.assertEqual(self.ruche("snapshot", "ls", "web"), ("", ""))
        self.assertEqual(self.ruche("snapshot", "create", "web")[0], "s1\n")
        self.assertEqual(self.ruche("snapshot", "create", "--description", "before it", "web", "two"), ("", ""))
        self.ruche("snapshot", "revert", "web", "s1")
        self.assertEqual(self.ruche("snapshot", "create", "web")[0], "s2\n")
        rows = self.ruche("snapshot", "ls", "web")[0].splitlines()
        self.assertEqual([line.split("20")[0].rstrip() for line in rows[1:]], ["s1", "  two", "  s2 *"])
        self.assertRegex(rows[2], r"stopped +before it$")
        two = self.snapshots()[1]
        self.assertEqual((two["name"], two["parent"], two["memory"], two["current"], two["memory_size"]),
                         ("two", "s1", False, False, 0))
        self.assertEqual(len(self.layers()), 4)

    def test_settings_go_back(self):
        self.ruche("snapshot", "create", "web", "one")
        self.ruche("set", "web", "cpus=3")
        self.ruche("snapshot", "create", "web", "three")
        for name, cpus in (("one", 1), ("three", 3)):
            self.ruche("snapshot", "revert", "web", name)
            self.assertEqual(json.loads(self.ruche("inspect", "--json", "web")[0])[0]["cpus"], cpus)

    def test_removing(self):
        for name in ("a", "b", "c"):
            self.ruche("snapshot", "create", "web", name)
        self.ruche("snapshot", "rm", "web", "b")
        self.assertEqual([(s["name"], s["parent"]) for s in self.snapshots()], [("a", None), ("c", "a")])
        self.ruche("snapshot", "revert", "web", "a")
        self.assertIn("2 later states", self.refused("rm", "web", "a"))
        self.ruche("snapshot", "rm", "web", "c")
        self.ruche("snapshot", "rm", "web", "a")
        self.assertEqual((len(self.layers()), self.snapshots()), (1, []))

    def test_export(self):
        self.ruche("snapshot", "create", "--description", "for others", "web", "a")
        self.ruche("snapshot", "export", "web", "a", self.path("out"))
        self.assertEqual(set(os.listdir(self.path("out"))), {"disk.qcow2", "snapshot.json"})
        with open(self.path("out/snapshot.json"), encoding="utf-8") as f:
            told = json.load(f)
        self.assertEqual((told["machine"], told["name"], told["description"], told["memory"]), ("web", "a", "for others", False))
        subprocess.run(["qemu-img", "compare", "-q", self.path("out/disk.qcow2"), self.web + "/disk.qcow2"], check=True)
        self.assertIn("is there already", self.refused("export", "web", "a", self.path("out")))
        self.assertIn("there is no snapshot 'b'", self.refused("export", "web", "b", self.path("other")))
        self.assertIn("No such file", self.refused("export", "web", "a", self.path("no/where")))
        self.assertFalse(os.path.exists(self.path("other")))

    def test_without_qemu_img(self):
        self.ruche("snapshot", "create", "web", "a")
        err = self.one_line(self.ruche("snapshot", "rm", "web", "a", status=125, PATH=self.path("nothing"))[1])
        self.assertIn("qemu-utils", err)
        self.assertIn("takes room until the next removal", err)
        self.ruche("snapshot", "create", "web", "b")
        self.ruche("snapshot", "rm", "web", "b")
        self.assertEqual(len(self.layers()), 1)

    def test_machine_with_snapshots(self):
        self.ruche("snapshot", "create", "web")
        self.ruche("snapshot", "create", "web")
        self.assertIn("it has 2 snapshots (rm --force", self.one_line(self.ruche("rm", "web", status=125)[1]))
        self.ruche("rm", "--force", "web")
        self.assertFalse(os.path.exists(self.web))

    def test_too_many_layers(self):
        for _ in range(59):
            self.ruche("snapshot", "create", "web")
        self.assertIn("60 layers", self.refused("create", "web"))
        self.ruche("snapshot", "rm", "web", "s59")
        self.ruche("snapshot", "create", "web")

    def test_refusals(self):
        self.ruche("snapshot", "create", "web", "one")
        self.assertIn("there is a snapshot 'one'", self.refused("create", "web", "one"))
        self.assertIn("there is no snapshot 'two'", self.refused("revert", "web", "two"))
        self.assertIn("there is no snapshot 'two'", self.refused("rm", "web", "two"))
        self.assertIn("there is no machine 'x'", self.refused("ls", "x"))
        self.write("data/raw", "x" * 4096)
        self.ruche("create", "raw", "--disk", self.path("data/raw"), "small")
        self.assertIn("is a file that was given to it", self.refused("create", "raw"))
        self.ruche("create", "ro", "--disk", self.path("data/raw") + ",readonly", "small")
        self.ruche("snapshot", "create", "ro")
        self.ruche("image", "rm", "--force", "small")
        self.assertIn("images/small", self.refused("create", "web"))


@table(
    ("nothing", ["snapshot"], "say create, ls, revert, rm or export"),
    ("another action", ["snapshot", "take", "x"], "unknown action 'take'"),
    ("no machine", ["snapshot", "create"], "which machine?"),
    ("no snapshot", ["snapshot", "revert", "x"], "which snapshot?"),
    ("too many words", ["snapshot", "rm", "x", "y", "z"], "too many words"),
    ("no snapshot to export", ["snapshot", "export", "x"], "which snapshot?"),
    ("no folder", ["snapshot", "export", "x", "y"], "to which folder?"),
    ("an option of another action", ["snapshot", "rm", "--json", "x", "y"], "unknown option '--json'"),
    ("a name that is none", ["snapshot", "create", "x", "a/b"], "'a/b' is no name"),
    ("no description", ["snapshot", "create", "x", "--description"], "--description wants a value"),
)
class Words(Case):
    def row(self, words, reason):
        self.assertIn(reason, self.one_line(self.ruche(*words, status=2)[1]))
        self.assertFalse(os.path.exists(self.path("data")))


unittest.main(verbosity=2)
