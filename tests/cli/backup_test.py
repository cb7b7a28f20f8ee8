#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`ruche backup` on machines that do not run, by the real ruche-vmm; on one that runs, with a stand-in; what it refuses."""
import hashlib
import json
import os
import shutil
import subprocess
import unittest

from fake_agent import FakeAgent
from harness import Named, Real, Terminal, contents, table


class Stopped(Real):
    def setUp(self):
        super().setUp()
        self.dir = self.path("backups")
        self.second = self.files["qcow2"]
        self.ruche("create", "web", "--kernel", self.files["kernel"], "--net", "none", "--disk", self.second)

    def write(self, offset, value):
        subprocess.run(["qemu-io", "-c", f"write -P {value} {offset} 64k", self.second], check=True, stdout=subprocess.DEVNULL)

    def backups(self):
        return json.loads(self.ruche("backup", "ls", "--json", self.dir)[0])["backups"]

    def same(self, backup, disk):
        names = {f["role"]: f["name"] for f in backup["files"]}
        subprocess.run(["qemu-img", "compare", "-q", os.path.join(self.dir, names["disk0"]), disk], check=True)

    def test_chain(self):
        out, _ = self.ruche("backup", "web", self.dir)
        self.assertRegex(out, r"\Abackup 1: full, [\d.]+ [KMG]iB, of a stopped machine\n\Z")
        self.same(self.backups()[0], self.second)
        before = os.stat(self.second).st_mtime_ns
        self.ruche("backup", "web", self.dir)
        self.assertEqual(os.stat(self.second).st_mtime_ns, before)  # a saved machine still goes with its disk
        self.write("3M", 7)
        self.ruche("backup", "web", self.dir)
        first, second, third = self.backups()
        self.assertEqual([b["kind"] for b in (first, second, third)], ["full", "incremental", "incremental"])
        self.assertEqual(third["files"][0]["role"], "kernel")
        self.assertEqual(len({f["name"] for b in self.backups() for f in b["files"] if f["role"] == "kernel"}), 1)
        sizes = [f["size"] for b in (first, second, third) for f in b["files"] if f["role"] == "disk0"]
        self.assertLess(sizes[1], sizes[2])
        self.same(third, self.second)
        rows = self.ruche("backup", "ls", self.dir)[0].splitlines()
        self.assertRegex(rows[3], r" +3  \S+Z +incremental +\S+ \wiB stopped")
        self.assertIn("verify: done", self.ruche("backup", "verify", self.dir)[1])

    def test_folder_that_was_copied(self):
        """Both go on from the same backup, and neither knows what the other has noted."""
        self.ruche("backup", "web", self.dir)
        shutil.copytree(self.dir, self.path("copy"))
        self.write("1M", 5)
        self.ruche("backup", "web", self.dir)
        self.write("2M", 6)
        self.ruche("backup", "web", self.path("copy"))
        self.write("3M", 7)
        self.ruche("backup", "web", self.dir)
        self.same(self.backups()[-1], self.second)
        self.dir = self.path("copy")
        self.ruche("backup", "web", self.dir)
        self.same(self.backups()[-1], self.second)

    def test_restore(self):
        self.ruche("backup", "web", self.dir)
        copy = self.path("copy")
        shutil.copy(self.second, copy)
        self.write("0", 9)
        self.ruche("backup", "web", self.dir)
        self.assertIn("there is a machine 'web' (--name", self.one_line(self.ruche("backup", "restore", self.dir, status=125)[1]))
        self.ruche("rm", "web")
        self.ruche("backup", "restore", "--at", "1", self.dir)
        web = json.loads(self.ruche("inspect", "--json", "web")[0])[0]
        config = web["config"]
        self.assertEqual(config["disks"], [{"file": web["folder"] + "/given-0.qcow2", "format": "qcow2"}])
        self.assertEqual(config["kernel"], web["folder"] + "/kernel")
        subprocess.run(["qemu-img", "compare", "-q", config["disks"][0]["file"], copy], check=True)
        self.assertIn("of another machine, 'web'", self.one_line(self.ruche("backup", "web", self.dir, status=125)[1]))

    def test_raw_and_read_only(self):
        self.ruche("create", "raw", "--kernel", self.files["kernel"], "--disk", self.files["raw"], "--disk",
                   self.second + ",readonly")
        for why in ("", "disk0: nothing notes what changes on a raw disk"):
            self.ruche("backup", "raw", self.dir)
            last = self.backups()[-1]
            self.assertEqual((last["kind"], last["why"], [f["role"] for f in last["files"]]), ("full", why, ["kernel", "disk0"]))
        self.ruche("create", "none", "--kernel", self.files["kernel"], "--disk", self.second + ",readonly")
        self.refused("none", self.path("other"), reason="it has no disk that it writes to")

    def refused(self, *words, reason):
        before = contents(self.files.folder)
        self.assertIn(reason, self.one_line(self.ruche("backup", *words, status=125)[1]))
        self.assertEqual(contents(self.files.folder), before)

    def test_refusals(self):
        self.refused("nobody", self.dir, reason="there is no machine 'nobody'")
        self.refused("web", self.files["here"], reason="is not empty and has no backups in it")
        self.refused("web", self.files["raw"], reason="Not a directory")
        self.refused("web", self.path("no/where"), reason="No such file or directory")
        self.refused("ls", self.path("nowhere"), reason="No such file or directory")
        self.refused("ls", self.files["here"], reason="there are no backups in")
        self.refused("verify", self.files["here"], reason="there are no backups in")
        self.refused("prune", "--keep", "1", self.files["here"], reason="there are no backups in")
        self.ruche("backup", "web", self.dir)
        self.refused("restore", "--at", "2", "--name", "x", self.dir, reason="there is no backup '2'")
        self.refused("restore", "--at", "x", "--name", "x", self.dir, reason="there is no backup 'x'")
        os.unlink(self.files["kernel"])
        self.refused("web", self.dir, reason="No such file or directory")
        self.assertEqual(len(self.backups()), 1)

    def forge(self, change):
        """A manifest that is as it should be but for what it says."""
        path = self.dir + "/backup.json"
        with open(path, encoding="utf-8") as f:
            manifest = json.load(f)
        change(manifest["content"])
        text = json.dumps(manifest["content"], indent=2, ensure_ascii=False)
        manifest["sha256"] = hashlib.sha256(text.encode()).hexdigest()
        with open(path, "w", encoding="utf-8") as f:
            f.write(json.dumps(manifest, indent=2, ensure_ascii=False))

    def test_forged(self):
        self.ruche("backup", "web", self.dir)
        self.ruche("backup", "web", self.dir)
        shutil.copytree(self.dir, self.path("sound"))

        def disk(content, number):
            return next(f for f in content["backups"][number]["files"] if f["role"] == "disk0")

        for change, reason in (
                (lambda c: c.update(version=2), "a newer Ruche"),
                (lambda c: disk(c, 0).update(name="../x"), "does not have the form"),
                (lambda c: disk(c, 0).update(name="nbd:1-disk0.qcow2"), "does not have the form"),
                (lambda c: disk(c, 1).update(backing=c["backups"][0]["files"][0]["name"]), "does not have the form"),
                (lambda c: c.update(next=2), "does not have the form"),
                (lambda c: c["backups"].reverse(), "does not have the form"),
                (lambda c: disk(c, 1).pop("backing"), "does not stand on what the manifest says"),
                (lambda c: disk(c, 1).update(backing="3-disk0.qcow2"), "does not stand on what the manifest says"),
                (lambda c: disk(c, 1).update(size=1), "does not have the size")):
            self.forge(change)
            self.refused("restore", "--name", "x", self.dir, reason=reason)
            shutil.rmtree(self.dir)
            shutil.copytree(self.path("sound"), self.dir)
        # Data that is to come from a file of the host's.
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={self.path('apart')},data_file_raw=on",
                        self.path("hostile"), "16M"], check=True)
        shutil.copy(self.path("hostile"), self.dir + "/1-disk0.qcow2")
        with open(self.path("hostile"), "rb") as f:
            data = f.read()
        self.forge(lambda c: disk(c, 0).update(size=len(data), sha256=hashlib.sha256(data).hexdigest()))
        self.refused("restore", "--name", "x", "--at", "1", self.dir, reason="does not stand on what the manifest says")
        shutil.rmtree(self.dir)
        shutil.copytree(self.path("sound"), self.dir)
        self.forge(lambda c: None)
        self.ruche("backup", "restore", "--name", "x", self.dir)

    def test_leftovers(self):
        self.ruche("backup", "web", self.dir)
        for name in ("7-disk0.qcow2", "2-disk0.qcow2.part", "kernel-0123", "backup.json.part"):
            self.files.write("x", b"x")
            shutil.copy(self.path("files/x"), os.path.join(self.dir, name))
        own = os.path.join(self.dir, "notes.txt")
        shutil.copy(self.path("files/x"), own)
        self.ruche("backup", "web", self.dir)
        names = {f["name"] for b in self.backups() for f in b["files"]}
        self.assertEqual(set(os.listdir(self.dir)), names | {"backup.json", "notes.txt"})

    def test_progress_on_a_terminal(self):
        t = Terminal(["backup", "web", self.dir], dict(self.env, RUCHE_VMM=""))
        self.addCleanup(t.close)
        t.expect("backup: done in ")
        t.expect("backup 1: full")
        self.assertEqual(t.wait(), 0)


class Running(Named):
    """What is asked of a machine, in which order."""

    def setUp(self):
        super().setUp()
        self.write("kernel", "kernel")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.path("disk"), "1M"], check=True)
        self.ruche("create", "web", "--kernel", self.path("kernel"), "--disk", self.path("disk"))
        self.ruche("start", "web")

    def agent(self):
        path = json.loads(self.ruche("inspect", "--json", "web")[0])[0]["agent"]
        agent = FakeAgent(path)
        self.addCleanup(agent.close)
        return agent

    def test_frozen_for_the_instant(self):
        agent = self.agent()
        out, _ = self.ruche("backup", "web", self.path("backups"))
        self.assertIn("application-consistent", out)
        self.assertEqual([name for name in agent.names() if "fsfreeze" in name], ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"])
        asked = [line for line in self.log() if not line.startswith("q") and "--" not in line]
        self.assertEqual(asked[-3:], ["block-dirty-bitmap-add", "transaction", "block-job-dismiss"])

    def test_freeze_refused(self):
        agent = self.agent()
        agent.replies["guest-fsfreeze-freeze"] = b'{"error": {"class": "GenericError", "desc": "no file system"}}\n'
        out, err = self.ruche("backup", "web", self.path("backups"))
        self.assertIn("crash-consistent", out)
        self.assertIn("only crash-consistent: freeze the file systems", err)

    def test_job_that_fails(self):
        self.ruche("backup", "web", self.path("backups"))
        before = contents(self.path("backups"))
        self.ruche("stop", "--force", "web")
        self.ruche("start", "web", FAKE_JOB_ERROR="No space left on device")
        err = self.ruche("backup", "web", self.path("backups"), status=125)[1]
        self.assertIn("ruche: backup of machine 'web': copy its disks: No space left on device\n", err)
        self.assertEqual(contents(self.path("backups")), before)


@table(
    ("nothing", ["backup"], "which machine, and which folder?"),
    ("no folder", ["backup", "web"], "which folder?"),
    ("too much", ["backup", "web", "a", "b"], "'b' is too much"),
    ("ls of nothing", ["backup", "ls"], "which folder?"),
    ("ls of too much", ["backup", "ls", "a", "b"], "'b' is too much"),
    ("an option of another action", ["backup", "verify", "--json", "a"], "unknown option '--json'"),
    ("another option", ["backup", "--keep", "3", "web", "a"], "unknown option '--keep'"),
    ("prune without a number", ["backup", "prune", "a"], "--keep NUMBER is wanted"),
    ("prune to nothing", ["backup", "prune", "--keep", "0", "a"], "'0' is no number from 1 on"),
    ("prune to no number", ["backup", "prune", "--keep", "x", "a"], "'x' is no number from 1 on"),
)
class Words(Real):
    def row(self, words, reason):
        self.assertIn(reason, self.one_line(self.ruche(*words, status=2)[1]))
        self.assertFalse(os.path.exists(self.path("data")))


unittest.main(verbosity=2)
