#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots of machines with a guest that writes: disk and memory are of one instant, whatever was acknowledged before is
there, nothing that came after; forth and back, and with snapshots removed between."""
import os
import re
import subprocess
import unittest

from machine import Console, Restored
from tiny import Tiny


class Snapshots(Tiny):
    def console(self, name):
        c = Console(name, self.env)
        self.addCleanup(lambda: c.process.poll() is None and c.close())
        return c

    def start(self, name):
        console = self.inspect(name)["console"]
        if os.path.exists(console):
            os.unlink(console)  # what it said in earlier lives
        self.ruche("start", name)
        c = self.console(name)
        c.expect("shell ready\n", 120)
        return c

    def acknowledged(self, c, at_least):
        """Waits for a record of that number or a later one; gives its number."""
        while True:
            n = int(c.expect(r"ack (\d+) end\n").group(1))
            if n >= at_least:
                return n

    def went_back(self, name, before):
        """A console, and the first record that a machine told of which had told of `before` when it was thrown away."""
        c = self.console(name)
        earlier = 0
        for _ in range(10 * before):
            later = int(c.expect(r"ack (\d+) end\n").group(1))
            if earlier >= before > later:
                return c, later
            earlier = later
        return self.fail(f"it never went back: {c.text[-1000:]}")

    def stop_writing(self, c):
        """Gives the number of the last record."""
        c.run("> /stop; wait")
        return self.last_record(c)

    def last_record(self, c):
        return int(re.findall(r"ack (\d+) end\n", c.text)[-1])

    def test_running(self):
        self.create("web")
        c = self.start("web")
        c.process.stdin.write(b"writer &\n")
        c.process.stdin.flush()
        low = self.acknowledged(c, 10)
        self.ruche("snapshot", "create", "--description", "at work", "web", "one")
        c.run("true")  # all that was told before the snapshot is read now
        high = self.acknowledged(c, self.last_record(c) + 30)
        one = self.snapshots("web")["one"]
        self.assertEqual((one["parent"], one["memory"], one["current"], one["description"]), (None, True, True, "at work"))
        self.assertGreater(one["memory_size"], 1 << 20)
        self.assertEqual(len(self.layers("web")), 2)
        self.check_layers("web")
        c.close()
        self.assertIn("the machine runs on top of it", self.ruche("snapshot", "rm", "web", "one", status=125))

        for _ in range(2):  # of a machine that runs, and of one that does not
            before = set(self.layers("web"))
            self.ruche("snapshot", "revert", "web", "one")
            self.assertEqual(self.inspect("web")["status"], "running")
            after = set(self.layers("web"))
            self.assertEqual((len(after), len(before & after)), (2, 1))
            c, first = self.went_back("web", high)
            self.assertGreater(first, low)
            last = self.stop_writing(c)
            self.assertEqual(c.run(f"records {last + 1} {last + 1} | tail -n 1; records {last} {high}"),
                             "records looked at\nrecords looked at")
            c.close()
            self.ruche("stop", "--force", "--timeout", "0", "web")
            self.check_layers("web")

        # Elsewhere it goes on as well.
        self.ruche("snapshot", "export", "web", "one", self.path("out"))
        self.assertEqual(set(os.listdir(self.path("out"))), {"disk.qcow2", "memory", "snapshot.json"})
        with Restored(self.path("out/memory"), "--disk", self.path("out/disk.qcow2")) as elsewhere:
            self.assertGreater(int(elsewhere.expect(r"ack (\d+) end\n").group(1)), low)

        # What goes on now is the disk of that instant, without the memory.
        self.ruche("snapshot", "revert", "--cold", "web", "one")
        self.assertEqual(self.inspect("web")["status"], "stopped")
        c = self.start("web")
        self.assertEqual(c.run(f"records {first - 1} {first - 1}"), "records looked at")

    def write(self, c, number):
        c.run(f"echo state {number} | dd of=/dev/vda bs=512 seek={number} conv=notrunc,fsync 2>/dev/null")

    def states(self, c):
        return c.run("dd if=/dev/vda bs=512 count=10 2>/dev/null | tr -d '\\0'").split("\n")

    def stopped_with(self, number, *words):
        """Starts the machine, writes to its disk, stops it, and runs a command."""
        c = self.start("web")
        self.write(c, number)
        self.assertEqual(c.run("sync; (sleep 1; poweroff -f) & echo off"), "off")
        c.process.wait(60)
        c.close()
        self.ruche(*words)

    def show(self):
        c = self.start("web")
        states = self.states(c)
        c.close()
        self.ruche("stop", "--force", "--timeout", "0", "web")
        return states

    def test_stopped(self):
        self.create("web")
        self.stopped_with(1, "snapshot", "create", "web")
        self.stopped_with(2, "snapshot", "create", "web")
        self.stopped_with(3, "snapshot", "create", "web", "three")
        self.stopped_with(4, "snapshot", "revert", "web", "s1")
        self.assertEqual(self.inspect("web")["status"], "stopped")
        self.assertEqual(self.show(), ["state 1"])
        self.stopped_with(5, "snapshot", "create", "web", "branch")
        self.assertEqual({name: s["parent"] for name, s in self.snapshots("web").items()},
                         {"s1": None, "s2": "s1", "three": "s2", "branch": "s1"})
        self.assertIn("2 later states", self.ruche("snapshot", "rm", "web", "s1", status=125))
        self.assertIn("there is a snapshot 'three'", self.ruche("snapshot", "create", "web", "three", status=125))
        self.assertEqual(len(self.layers("web")), 5)
        # One between two others, which stay what they are; then the last of its branch; then the root.
        self.ruche("snapshot", "rm", "web", "s2")
        self.assertEqual(len(self.layers("web")), 4)
        self.check_layers("web")
        self.ruche("snapshot", "revert", "web", "three")
        self.assertEqual(self.show(), ["state 1", "state 2", "state 3"])
        self.ruche("snapshot", "rm", "web", "branch")
        self.ruche("snapshot", "rm", "web", "s1")
        self.assertEqual(len(self.layers("web")), 2)
        self.check_layers("web")
        self.assertEqual(self.snapshots("web")["three"]["parent"], None)
        self.assertEqual(self.show(), ["state 1", "state 2", "state 3"])
        self.ruche("snapshot", "rm", "web", "three")
        self.assertEqual((len(self.layers("web")), self.snapshots("web")), (1, {}))
        self.assertEqual(self.show(), ["state 1", "state 2", "state 3"])

    def test_refusals(self):
        self.create("web")
        raw = self.path("raw")
        with open(raw, "wb") as f:
            f.truncate(1 << 20)
        self.create("files", "--disk", raw)
        self.assertIn(f"its disk '{raw}' is a file that was given to it", self.ruche("snapshot", "create", "files", status=125))
        self.assertIn("there is no snapshot 'x'", self.ruche("snapshot", "revert", "web", "x", status=125))
        self.assertIn("there is no machine 'nobody'", self.ruche("snapshot", "ls", "nobody", status=125))
        self.assertEqual(self.ruche("snapshot", "create", "web"), "s1\n")
        self.assertIn("it has 1 snapshot (rm --force", self.ruche("rm", "web", status=125))
        self.assertIn("stands on it", self.ruche("image", "rm", "tiny", status=125))
        os.rename(self.path("data/ruche/images/tiny"), self.path("away"))
        for words in (("create", "web"), ("revert", "web", "s1")):
            self.assertIn("tiny", self.ruche("snapshot", *words, status=125))
        os.rename(self.path("away"), self.path("data/ruche/images/tiny"))
        self.ruche("rm", "--force", "web")
        self.ruche("rm", "files")
        self.assertEqual(os.listdir(self.path("data/ruche/machines")), [])


unittest.main(verbosity=2)
