#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 of `ruche backup` and of machines at random instants of backups being taken, pruned and restored: after each, every
backup of the manifest holds what it held and what was acknowledged before it was asked for, the machine loses nothing, and the
next command that goes through leaves no leftovers and only sound files.
"""
import json
import os
import sqlite3
import unittest

from backup_case import WRITES, Backing
from killing import EITHER, Killing

CHANCES = 3 * [(True, False), (False, False)] + EITHER  # mostly the machine goes on
ROUNDS = int(os.environ.get("ROUNDS", "150"))


class Killed(Killing, Backing):
    def setUp(self):
        super().setUp()
        self.begin_killing()
        self.kept = {}  # by number: the records in the backup, and a digest of its disk
        self.incremental = 0
        self.create("web", "--cmdline", WRITES)

    def running(self):
        return self.inspect("web")["status"] == "running"

    def choose(self):
        """Words of a command that is likely to succeed; starts the machine, or ends it, as seems good for it."""
        wanted = self.rng.random() < 0.8
        if wanted and not self.running():
            self.start()
        elif self.running() and not wanted:
            self.stop()
        kind = self.rng.choice(["take", "take", "take", "restore", "prune"] if len(self.kept) > 1 else ["take"])
        return kind, {"take": [*(["--full"] if self.rng.random() < 0.1 else []), "web", self.dir],
                      "restore": ["restore", "--name", "again", "--at", str(self.rng.choice(sorted(self.kept) or [1])), self.dir],
                      "prune": ["prune", "--keep", str(self.rng.randrange(1, 4)), self.dir]}[kind]

    def check_kept(self, kind, status, told):
        """All are there as they were, but for what the command was about."""
        if not os.path.exists(self.dir + "/backup.json"):
            self.assertNotEqual(status, 0)
            return
        backups = {b["number"]: b for b in self.manifest()["backups"]}
        gone, new = set(self.kept) - set(backups), set(backups) - set(self.kept)
        if gone:
            self.assertEqual(kind, "prune")
            self.assertLess(max(gone), min(backups))
        self.assertLessEqual(len(new), kind == "take")
        if status == 0 and kind == "take":
            self.assertEqual(len(new), 1)
        self.kept = {number: self.kept[number] for number in self.kept if number in backups}
        for number, b in backups.items():
            now = self.read_records(self.disk(b))
            self.assertEqual(self.kept.setdefault(number, now), now, number)
        for number in new:
            self.incremental += backups[number]["kind"] == "incremental"
            self.assertGreaterEqual(self.kept[number][0], told)
        self.ruche("backup", "verify", self.dir)

    def round(self):
        kind, words = self.choose()
        told = self.told() if self.running() else 0
        status = self.run_and_kill(kind, ["backup", *words], chances=CHANCES)
        self.wait_for(lambda: self.inspect("web")["status"] not in ("starting", "no-answer"))
        self.check_kept(kind, status, told)
        self.drop_restored(kind, status)
        if not self.running():  # and what the guest was told is on its disk
            self.assertGreaterEqual(self.read_records(self.layers("web")[-1])[0], self.told())

    def drop_restored(self, kind, status):
        """A machine that was restored is whole, or is not there."""
        there = "again" in {m["name"] for m in json.loads(self.ruche("ls", "-a", "--json"))}
        if kind == "restore" and status == 0:
            self.assertTrue(there)
        if there:
            self.assertIn(self.read_records(self.layers("again")[0]), self.kept.values())
            self.ruche("rm", "again")

    def test_any_instant(self):
        self.start()
        for _ in range(ROUNDS):
            self.round()
        print(f"{self.killed} of {ROUNDS} commands failed or were killed; {self.incremental} incremental backups", flush=True)
        if not self.running():
            self.start()
        self.backup()
        self.check_backups()
        with sqlite3.connect(self.path("data/ruche/catalog.db")) as db:
            self.assertEqual(db.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        db.close()
        self.assertEqual(os.listdir(self.path("data/ruche/machines")), [os.path.basename(self.inspect("web")["folder"])])
        self.stop()
        self.backup()
        self.check_layers("web")


unittest.main(verbosity=2)
