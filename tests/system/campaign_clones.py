#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 of `ruche clone`, of the machine that is cloned and of clones, at random instants: after each there are all clones of the
command or none, no record that a guest was told is durable is lost in any machine, each machine starts, and commands that go
through leave no leftovers and only sound layers. The disks, with their numbered records, are read by qemu-img.
"""
import os
import re
import unittest

from killing import Killing
from tiny import Tiny

ROUNDS = int(os.environ.get("ROUNDS", "100"))
KINDS = {"memory": [], "cold": ["--cold"], "full": ["--full"], "snapshot": ["--snapshot", "one"]}


class Killed(Killing, Tiny):
    def setUp(self):
        super().setUp()
        self.begin_killing()
        self.typical = dict.fromkeys(KINDS, 0.3)  # at first a guess
        self.create("web", "--cmdline", "console=ttyS0 quiet panic=-1 writes")

    # --- what is ---

    def machines(self):
        return {name: uuid for name, uuid in self.query("SELECT name, uuid FROM machine")}

    def home(self, name):
        return self.path("data/ruche/machines/" + self.machines()[name])

    def told(self, name):
        """The last record that the guest has told of in this life; 0: of none yet."""
        try:
            with open(self.home(name) + "/console", encoding="ascii", errors="replace") as f:
                return int((re.findall(r"ack (\d+) end", f.read()) or [0])[-1])
        except FileNotFoundError:
            return 0

    def records(self, name, layer=None):
        """The number of records on a machine's disk, or in a layer of it. A machine that runs stands still meanwhile."""
        layer = layer or self.query(f"SELECT disk FROM machine WHERE name = '{name}'")[0][0]
        running = self.status(name) == "running"
        if running:
            self.ruche("pause", name)
        n, _ = self.read_records(os.path.join(self.home(name), layer))
        if running:
            self.ruche("resume", name)
        return n

    # --- what is done ---

    def status(self, name):
        return self.inspect(name)["status"]

    def start(self, name):
        """Until it writes."""
        if self.status(name) != "running":
            if os.path.exists(self.home(name) + "/console"):
                os.unlink(self.home(name) + "/console")
            self.ruche("start", name)
        self.wait_for(lambda: self.told(name))

    def end(self, name):
        self.ruche("stop", "--force", "--timeout", "0", name)

    def processes(self):
        """Those of machines that run now."""
        return [pid for pid in (self.inspect(name).get("pid") for name in self.machines()) if pid]

    # --- what must hold ---

    def check_clones(self, kind, names, status, told):
        """All or none are there; each holds what the machine had told of, and goes on writing after it."""
        there = [name for name in names if name in self.machines()]
        self.assertIn(there, ([], names))
        if status == 0:
            self.assertEqual(there, names)
        for name in there:
            self.wait_for(lambda name=name: self.status(name) not in ("starting", "no-answer"))
            self.assertGreaterEqual(self.records(name), told if kind != "snapshot" else self.early)
        for name in there:
            self.start(name)
            self.wait_for(lambda name=name: self.told(name) > (told if kind != "snapshot" else self.early))
            self.end(name)
            self.assertGreaterEqual(self.records(name), self.told(name))
            self.check_layers(name)
        return there

    def round(self, number):
        kind = self.rng.choice(sorted(KINDS))
        if self.rng.random() < 0.7:
            self.start("web")
        elif self.status("web") == "running":
            self.end("web")
        # Of a machine that is ended meanwhile it may not have been written down.
        told = self.told("web")
        names = [f"c{number}-{i}" for i in range(self.rng.randrange(1, 4))]
        status = self.run_and_kill(kind, ["clone", *KINDS[kind], "web", *names], Killed.processes)
        self.wait_for(lambda: self.status("web") not in ("starting", "no-answer"))
        there = self.check_clones(kind, names, status, told)
        self.end("web")
        self.assertGreaterEqual(self.records("web"), self.told("web"))
        self.check_layers("web")
        if there and self.rng.random() < 0.9:
            self.ruche("rm", "--force", *there)
        if number % 5 == 4:  # or there would be too many layers
            self.ruche("snapshot", "create", "web", "more")
            self.ruche("snapshot", "rm", "web", "more")

    def test_any_instant(self):
        self.start("web")
        self.ruche("snapshot", "create", "web", "one")
        self.early = self.records("web", self.query("SELECT disk FROM snapshot")[0][0])
        for number in range(ROUNDS):
            self.round(number)
        print(f"{self.killed} of {ROUNDS} commands failed or were killed", flush=True)
        self.assertEqual(self.query("PRAGMA integrity_check"), [("ok",)])
        self.ruche("ls", "-a")
        self.assertEqual(set(os.listdir(self.path("data/ruche/machines"))), set(self.machines().values()))
        for name in set(self.machines()) - {"web"}:
            self.ruche("rm", "--force", name)
        for _ in range(2):  # the first may find more than it may clear up
            self.ruche("snapshot", "create", "web")
        for layer in self.layers("web"):
            self.assertEqual(os.stat(layer).st_nlink, 1)


unittest.main(verbosity=2)
