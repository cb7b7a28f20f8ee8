#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 of `ruche` and of keepers at random instants of create, start, set, rename and rm: after each the catalogue is
consistent, every machine is as it was before the command or as it is after it, what runs can be stopped, and the next command
leaves no leftovers. Needs no guest: the machines run a loop of a few bytes.
"""
import json
import os
import random
import signal
import sqlite3
import struct
import subprocess
import time
import unittest

from machine import ENGINE, RUCHE, Case

SEED = int(os.environ.get("RUCHE_TEST_SEED", random.randrange(1 << 32)))
ROUNDS = int(os.environ.get("ROUNDS", "500"))


def endless_kernel():
    """A Multiboot 1 kernel: cli; again: hlt; jmp again."""
    code, at, flags = b"\xfa\xf4\xeb\xfd", 0x100000, 1 << 16
    end = at + 32 + len(code)
    return struct.pack("<8I", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF, at, at, end, end, at + 32) + code


class Killed(Case):
    def setUp(self):
        super().setUp()
        os.mkdir(self.path("run"), 0o700)
        self.env = dict(os.environ, XDG_DATA_HOME=self.path("data"), XDG_RUNTIME_DIR=self.path("run"))
        with open(self.path("kernel"), "wb") as f:
            f.write(endless_kernel())
        self.rng = random.Random(SEED)
        self.counter = 0
        self.addCleanup(self.ruche, "stop", "--all", "--force", "--timeout", "0")

    def ruche(self, *words, allowed=(0,)):
        done = subprocess.run([RUCHE, *words], env=self.env, capture_output=True, text=True, timeout=120, check=False)
        self.assertIn(done.returncode, allowed, (words, done.stdout, done.stderr))
        return done.stdout

    def machines(self):
        return {o["name"]: o for o in json.loads(self.ruche("ls", "-a", "--json"))}

    def config(self, name):
        return json.loads(self.ruche("inspect", "--json", name))[0]["config"]

    def command(self, machines):
        """Words of a command that is likely to succeed, on a machine or for a new one."""
        self.counter += 1
        name = self.rng.choice(list(machines)) if machines else None
        kind = self.rng.choice(["create", "start", "set", "rename", "rm"]) if name else "create"
        if kind == "create" or len(machines) < 3:
            return ["create", f"m{self.counter}", *(["--engine", ENGINE] if ENGINE else []), "--memory", "16M", "--kernel",
                    self.path("kernel")]
        return {"start": ["start", name], "set": ["set", name, f"cmdline=c{self.counter}", f"cpus={self.rng.randrange(1, 9)}"],
                "rename": ["rename", name, f"m{self.counter}"], "rm": ["rm", name, "--force"]}[kind]

    def run_and_kill(self, words, typical):
        """Kills it somewhere in the time that such a command takes; with it, at times, the keeper it has made."""
        p = subprocess.Popen([RUCHE, *words], env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(self.rng.uniform(0, typical * 1.2))
        victims = [p.pid]
        if words[0] == "start" and self.rng.random() < 0.5:
            try:
                with open(f"/proc/{p.pid}/task/{p.pid}/children", encoding="ascii") as f:
                    victims += map(int, f.read().split())
            except OSError:
                pass
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return p.wait() == -signal.SIGKILL

    def check(self, words, before, configs):
        after = self.machines()  # the next command, which sweeps
        with sqlite3.connect(self.path("data/ruche/catalog.db")) as db:
            self.assertEqual(db.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        db.close()
        folders = set(os.listdir(self.path("data/ruche/machines")))
        self.assertEqual(folders, {o["uuid"] for o in after.values()})
        named_before = {o["uuid"]: name for name, o in before.items()}
        named_after = {o["uuid"]: name for name, o in after.items()}
        verb = words[0]
        for uuid, name in named_after.items():
            if uuid not in named_before:
                self.assertEqual((verb, name), ("create", words[1]))
            elif name != named_before[uuid]:
                self.assertEqual((verb, named_before[uuid], name), ("rename", words[1], words[2]))
            elif (config := self.config(name)) != configs[uuid]:
                self.assertEqual((verb, name), ("set", words[1]))
                self.assertEqual({**configs[uuid], "cmdline": words[2][8:], "cpus": int(words[3][5:])}, config)
        for uuid in set(named_before) - set(named_after):
            self.assertEqual((verb, named_before[uuid]), ("rm", words[1]))
        if verb == "start":
            self.settle(words[1])

    def settle(self, name):
        """Whatever became of the start, the machine can be ended and started."""
        if self.rng.random() < 0.3:
            self.ruche("stop", "--force", "--timeout", "0", name)
            self.assertNotIn(self.machines()[name]["status"], ("running", "starting"))
            self.ruche("start", name)
            self.assertEqual(self.machines()[name]["status"], "running")
            self.ruche("stop", "--force", "--timeout", "0", name)

    def test_any_instant(self):
        print("seed", SEED, flush=True)
        typical = {}
        killed = 0
        for _ in range(ROUNDS):
            before = self.machines()
            configs = {o["uuid"]: self.config(name) for name, o in before.items()}
            words = self.command(before)
            if words[0] not in typical:
                start = time.monotonic()
                self.ruche(*words, allowed=(0, 125))  # it may run already
                typical[words[0]] = time.monotonic() - start
            else:
                killed += self.run_and_kill(words, typical[words[0]])
            self.check(words, before, configs)
        print(f"{killed} of {ROUNDS} commands were killed", flush=True)
        self.assertGreater(killed, ROUNDS // 10)


unittest.main(verbosity=2)
