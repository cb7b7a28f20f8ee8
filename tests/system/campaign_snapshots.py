#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 of `ruche` and of machines at random instants of snapshots being taken, gone back to and removed: after each no
record that the guest was told is durable is lost, each snapshot holds what it held, the machine starts, and commands that go
through leave no leftovers and only sound layers. The disk, with its numbered records, is read by qemu-img.
"""
import os
import re
import signal
import subprocess
import unittest

from killing import Killing
from tiny import Tiny

ROUNDS = int(os.environ.get("ROUNDS", "150"))


class Killed(Killing, Tiny):
    def setUp(self):
        super().setUp()
        self.begin_killing()
        self.kept = {}  # by snapshot: the records on its disk, and a digest of all of it
        self.create("web", "--cmdline", "console=ttyS0 quiet panic=-1 writes")
        self.web = self.inspect("web")["folder"]

    # --- what is ---

    def status(self):
        return self.inspect("web")["status"]

    def told(self):
        """The records that the guest has told of since the machine was last started; after going back they are lower."""
        try:
            with open(self.web + "/console", encoding="ascii", errors="replace") as f:
                return [int(n) for n in re.findall(r"ack (\d+) end", f.read())]
        except FileNotFoundError:
            return []

    def top(self):
        return self.query("SELECT disk FROM machine")[0][0]

    def look_at(self, layer):
        return self.read_records(os.path.join(self.web, layer))

    # --- what is done ---

    def start(self):
        if os.path.exists(self.web + "/console"):
            os.unlink(self.web + "/console")
        self.ruche("start", "web")
        self.wait_for(self.told)

    def choose(self, number):
        """Words of a command that is likely to succeed; starts the machine, or ends it, as seems good for it."""
        names = sorted(self.kept)
        kind = self.rng.choice(["create"] if len(names) < 2 else ["revert", "rm"] if len(names) > 5 else ["create", "revert", "rm"])
        running = self.status() == "running"
        wanted = self.rng.random() < (0.1 if kind == "rm" else 0.8)
        if wanted and not running:
            self.start()
        elif running and not wanted:
            self.ruche("stop", "--force", "--timeout", "0", "web")
        return kind, f"n{number}" if kind == "create" else self.rng.choice(names)

    # --- what must hold ---

    def check_snapshots(self, kind, name, status):
        """All but the one that the command was about are there as they were; that one is there or is not."""
        layers = dict(self.query("SELECT name, disk FROM snapshot"))
        gone, new = set(self.kept) - set(layers), set(layers) - set(self.kept)
        self.assertLessEqual(gone, {name} if kind == "rm" else set())
        self.assertLessEqual(new, {name} if kind == "create" else set())
        if status == 0:
            self.assertEqual(gone | new, {name} if kind != "revert" else set())
        for one in gone:
            del self.kept[one]
        for one, layer in layers.items():
            now = self.look_at(layer)
            self.assertEqual(self.kept.setdefault(one, now), now, one)

    def check_disk(self, went_back_to):
        """Of a machine that has ended: what the guest was told is on its disk."""
        numbers = self.told()
        lower = [i for i in range(1, len(numbers)) if numbers[i] < numbers[i - 1]]
        if went_back_to:  # and may have told of nothing since
            numbers = numbers[lower[-1]:] if lower else [self.kept[went_back_to][0]]
        found, _ = self.look_at(self.top())
        self.assertGreaterEqual(found, numbers[-1] if numbers else 0)

    def round(self, number):
        kind, name = self.choose(number)
        told, top = self.told(), self.top()
        running = self.status() == "running"
        status = self.run_and_kill(kind, ["snapshot", kind, "web", name])
        self.wait_for(lambda: self.status() not in ("starting", "no-answer"))
        self.check_snapshots(kind, name, status)
        if kind == "create" and name in self.kept and running:
            self.assertGreaterEqual(self.kept[name][0], told[-1])
        went_back = kind == "revert" and self.top() != top
        if kind == "revert" and status == 0:
            self.assertTrue(went_back)
        if self.status() == "running" and self.rng.random() < 0.5:
            os.kill(self.inspect("web")["pid"], signal.SIGKILL)
        self.ruche("stop", "--force", "--timeout", "0", "web")
        self.check_disk(name if went_back else None)
        self.start()

    def test_any_instant(self):
        self.start()
        for number in range(ROUNDS):
            self.round(number)
        print(f"{self.killed} of {ROUNDS} commands failed or were killed", flush=True)
        self.ruche("stop", "--force", "--timeout", "0", "web")
        for _ in range(2):  # the first may find more than it may clear up
            self.ruche("snapshot", "create", "web")
        self.assertEqual(self.query("PRAGMA integrity_check"), [("ok",)])
        for layer in self.layers("web")[:]:
            subprocess.run(["qemu-img", "check", "-q", "-r", "leaks", layer], check=True)
        self.check_layers("web")
        if os.path.exists(self.web + "/snapshots"):
            saved = {i for i, in self.query("SELECT id FROM snapshot WHERE memory = 1")}
            self.assertEqual(set(os.listdir(self.web + "/snapshots")), saved)


unittest.main(verbosity=2)
