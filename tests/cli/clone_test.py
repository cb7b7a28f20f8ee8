#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`ruche clone`: what clones have of their own and what they share, of machines that run (a stand-in) and that do not; names,
words and refusals."""
import json
import os
import signal
import subprocess
import time
import unittest

from harness import RECIPE, Named, contents, table
from iso import read_iso


class Clones(Named):
    def setUp(self):
        super().setUp()
        self.write("recipes/small", RECIPE, 0o755)
        self.ruche("image", "build", "small")

    def layers(self, name):
        return {f for f in os.listdir(self.inspect(name)["folder"]) if f.endswith(".qcow2")}

    def links(self, name, file):
        return os.stat(os.path.join(self.inspect(name)["folder"], file)).st_nlink

    def everything(self):
        return contents(self.path("data/ruche/machines"))

    def unchanged_after(self, *words):
        """Gives the reason; nothing has changed but locks."""
        def left():
            return {name: what for name, what in self.everything().items() if not name.endswith("lock")}
        before, machines = left(), self.list("-a")
        reason = self.refused(*words)
        self.assertEqual((left(), self.list("-a")), (before, machines))
        return reason


class Stopped(Clones):
    def test_linked(self):
        self.ruche("create", "web", "--cpus", "3", "--net", "user,forward=tcp:2222:22,restrict=on", "small")
        err = self.ruche("clone", "web", "db", "mail")[1]
        self.assertEqual(len(err.splitlines()), 2)
        self.assertIn("ports of the host that lead to 'web' do not lead to its clones", err)
        self.assertIn("its ssh keys too, if it has made them, and the host name", err)
        all_three = [self.inspect(name) for name in ("web", "db", "mail")]
        self.assertEqual([m["cpus"] for m in all_three], [3, 3, 3])
        self.assertEqual({m["status"] for m in all_three}, {"stopped"})
        for one in (lambda m: m["uuid"], lambda m: m["config"]["nets"][0]["mac"]):
            self.assertEqual(len({one(m) for m in all_three}), 3)
        self.assertEqual([m["config"]["nets"][0]["backend"] for m in all_three],
                         ["user,forward=tcp:2222:22,restrict=on", "user,restrict=on", "user,restrict=on"])
        self.assertEqual((self.links("web", "disk.qcow2"), len(self.layers("web")), len(self.layers("db"))), (3, 2, 2))
        self.assertEqual(len(self.layers("web") | self.layers("db") | self.layers("mail")), 4)
        self.ruche("start", "db")
        self.assertRegex(self.option("disk")[0], self.inspect("db")["folder"] + "/disk-.*,format=qcow2")
        # Of an untouched top nothing more is frozen, and a clone's clone is like any other.
        self.ruche("clone", "web", "again")
        self.ruche("clone", "mail", "third")
        # systemd takes its machine-id from there.
        self.assertNotIn("cmdline", self.inspect("web")["config"])
        for name in ("mail", "third"):
            self.assertEqual(self.inspect(name)["config"]["cmdline"], "root=/dev/vda console=ttyS0 systemd.machine_id=" +
                             self.inspect(name)["uuid"].replace("-", ""))
        self.assertEqual((self.links("web", "disk.qcow2"), len(self.layers("web")), len(self.layers("third"))), (5, 2, 2))
        self.ruche("rm", "web", "mail")
        self.assertEqual(self.links("third", "disk.qcow2"), 3)
        self.ruche("image", "rm", "small", status=125)
        self.ruche("rm", "--force", "db", "again", "third")
        self.assertEqual(os.listdir(self.path("data/ruche/machines")), [])

    def test_numbers(self):
        self.create()
        self.assertEqual(self.ruche("clone", "--count", "3", "web", "c"), ("", ""))  # it has no disk, so nothing to tell
        self.assertEqual(sorted(self.list("-a")), ["c-1", "c-2", "c-3", "web"])

    def test_full(self):
        self.ruche("create", "web", "small")
        self.ruche("clone", "web", "linked")
        err = self.ruche("clone", "--full", "web", "copy")[1]
        self.assertIn("clone: 1/1 copy\n", err)
        self.assertEqual(self.layers("copy"), {"disk.qcow2"})
        disk = os.path.join(self.inspect("copy")["folder"], "disk.qcow2")
        self.assertEqual(os.stat(disk).st_mode & 0o777, 0o600)
        info = json.loads(subprocess.run(["qemu-img", "info", "--output=json", disk], capture_output=True, check=True).stdout)
        self.assertNotIn("backing-filename", info)
        self.ruche("snapshot", "create", "copy")
        self.ruche("start", "copy")

    def test_of_a_snapshot(self):
        self.ruche("create", "web", "small")
        self.ruche("snapshot", "create", "web", "one")
        self.ruche("set", "web", "cpus=2")
        self.ruche("snapshot", "create", "web", "two")
        layers = self.layers("web")
        self.ruche("clone", "--snapshot", "one", "web", "old")
        self.assertEqual((self.inspect("old")["cpus"], len(self.layers("old")), self.layers("web")), (1, 2, layers))
        self.assertEqual(json.loads(self.ruche("snapshot", "ls", "--json", "old")[0]), [])
        # A layer that is shared does not become one with another. Once it is one machine's it does.
        for left, status in ((3, None), (1, "rm")):
            if status:
                self.ruche("rm", "old")
            self.ruche("snapshot", "rm", "web", "one" if not status else "two")
            self.assertEqual(len(self.layers("web")), left)

    def test_seed(self):
        self.ruche("create", "web", "--hostname", "first", "--ssh-key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "B" * 43, "small")
        self.assertNotIn("host name", self.ruche("clone", "web", "db-2")[1])
        volumes = [read_iso(self.inspect(name)["folder"] + "/seed.iso")[1] for name in ("web", "db-2")]
        metas = [json.loads(v.pop("meta-data")) for v in volumes]
        self.assertEqual(volumes[0], volumes[1])
        self.assertEqual([m["instance-id"] for m in metas], [self.inspect(name)["uuid"] for name in ("web", "db-2")])
        self.assertEqual([m["local-hostname"] for m in metas], ["first", "db-2"])

    def test_refusals(self):
        self.ruche("create", "web", "small")
        self.ruche("create", "db", "small")
        self.assertIn("there is a machine 'db' (ruche rm db removes it)", self.unchanged_after("clone", "web", "new", "db"))
        self.assertIn("there is no machine 'x'", self.unchanged_after("clone", "x", "y"))
        self.assertIn("there is no snapshot 's'", self.unchanged_after("clone", "--snapshot", "s", "web", "y"))
        self.write("data/raw", "x" * 4096)
        self.ruche("create", "raw", "--disk", self.path("data/raw"), "small")
        self.assertIn("is a file that was given to it", self.unchanged_after("clone", "raw", "y"))
        self.assertIn("qemu-utils", self.one_line(self.ruche("clone", "--full", "web", "y", status=125, PATH=self.path("no"))[1]
                                                  .replace("clone: 1/1 y\n", "")))
        self.ruche("image", "rm", "--force", "small")
        self.assertIn("images/small", self.unchanged_after("clone", "web", "y"))

    def test_killed(self):
        """A command that is killed while it copies leaves nothing for long."""
        self.ruche("create", "web", "small")
        before = self.everything()
        self.write("bin/qemu-img", "#!/bin/sh\necho $$ >\"$0.pid\"\nexec sleep 1000\n", 0o755)
        p = self.popen("clone", "--full", "web", "copy", PATH=self.path("bin") + ":" + os.environ["PATH"])
        self.wait_until(lambda: os.path.exists(self.path("bin/qemu-img.pid")))
        self.assertEqual(sorted(self.list("-a")), ["web"])  # and its folder is left alone
        self.assertEqual(len(os.listdir(self.path("data/ruche/machines"))), 2)
        p.send_signal(signal.SIGKILL)
        p.wait()
        deadline = time.monotonic() + 30
        while len(os.listdir(self.path("data/ruche/machines"))) > 1:
            self.assertLess(time.monotonic(), deadline)
            self.ruche("ls")
        self.assertEqual(set(self.everything()) - set(before), {self.inspect("web")["uuid"] + "/snapshots.lock",
                                                                self.inspect("web")["uuid"] + "/lock"} - set(before))


class Running(Clones):
    def test_memory(self):
        self.create("web", "--net", "user,forward=tcp:2222:22")
        self.ruche("start", "web")
        err = self.ruche("clone", "--count", "5", "web", "c", FAKE_NO_AGENT="1")[1]
        self.assertIn("no guest agent answers in 'c-1' and others, so its guest still has the host name", err)
        self.assertEqual(self.log().count("ruche-save"), 1)
        self.assertEqual({m["status"] for m in self.list().values()}, {"running"})
        self.assertEqual(len(self.list()), 6)
        clone = self.inspect("c-3")
        line = next(line for line in self.log() if clone["uuid"] in line and "--restore" in line)
        self.assertIn(f"--restore {clone['folder']}/memory --net user,mac={clone['config']['nets'][0]['mac']}", line)
        self.assertNotIn("--kernel", line)
        self.assertEqual([f for f in self.everything() if f.endswith("/memory")], [])  # they have it open
        self.ruche("stop", "--force", "c-3")
        self.ruche("start", "c-3")
        self.assertIn("--kernel /k", self.log()[-1])

    def test_cold(self):
        self.create()
        self.ruche("start", "web")
        self.ruche("clone", "--cold", "web", "copy")
        self.assertEqual(self.inspect("copy")["status"], "stopped")
        self.assertEqual([f for f in self.everything() if f.endswith("/memory")], [])

    def test_one_does_not_start(self):
        """It goes on from its memory with the next start."""
        self.create()
        self.ruche("start", "web")
        self.assertIn("start machine 'copy': open disk 'x'", self.one_line(self.ruche("clone", "web", "copy", status=125,
                                                                                     FAKE="refuse")[1].split("\n", 1)[1]))
        self.assertEqual(self.inspect("copy")["status"], "died")
        self.assertIn("next start goes on from its saved memory", self.unchanged_after("clone", "copy", "other"))
        self.ruche("start", "copy")
        self.assertIn("--restore", self.log()[-1])


@table(
    ("no machine", ["clone"], "which machine?"),
    ("no name", ["clone", "web"], "what are the clones to be called?"),
    ("a name that is none", ["clone", "web", "a/b"], "'a/b' is no name"),
    ("a name twice", ["clone", "web", "a", "b", "a"], "'a' is there twice"),
    ("no number", ["clone", "--count", "x", "web", "a"], "--count wants a number, not 'x'"),
    ("zero", ["clone", "--count", "0", "web", "a"], "--count wants a number, not '0'"),
    ("too many", ["clone", "--count", "501", "web", "a"], "no more than 500"),
    ("numbers of two names", ["clone", "--count", "2", "web", "a", "b"], "numbered names of one name, not of 2"),
    ("a name that gets too long", ["clone", "--count", "10", "web", "a" * 61], "is no name"),
    ("an unknown option", ["clone", "--link", "web", "a"], "unknown option '--link'"),
    ("no value", ["clone", "web", "a", "--snapshot"], "--snapshot wants a value"),
)
class Words(Named):
    def row(self, words, reason):
        self.assertIn(reason, self.one_line(self.ruche(*words, status=2)[1]))
        self.assertFalse(os.path.exists(self.path("data")))


unittest.main(verbosity=2)
