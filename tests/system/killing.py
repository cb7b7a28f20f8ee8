# SPDX-License-Identifier: GPL-2.0-or-later
"""What campaigns of killing share: commands that are killed, and machines with them, at random instants."""
import os
import random
import signal
import sqlite3
import subprocess
import time

from machine import RUCHE

SEED = int(os.environ.get("RUCHE_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
EITHER = [(True, False), (False, True), (True, True)]  # whether the command is killed, and whether a machine


class Killing:
    """Beside a class of tests that has `path`, `env` and `inspect`."""

    def begin_killing(self):
        print("seed", SEED, flush=True)
        self.rng = random.Random(SEED)
        self.typical = {}  # seconds that a kind of command takes; before that is known it is left alone
        self.killed = 0

    def query(self, sql):
        """Rows of the catalogue."""
        with sqlite3.connect(self.path("data/ruche/catalog.db")) as db:
            rows = db.execute(sql).fetchall()
        db.close()
        return rows

    def run_and_kill(self, kind, words, victims=lambda self: [self.inspect("web").get("pid")], chances=EITHER):
        """Runs `ruche WORDS` and kills as one of `chances` says, a machine being one of `victims`; gives the exit status."""
        begin = time.monotonic()
        p = subprocess.Popen([RUCHE, *words], env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if kind in self.typical:
            time.sleep(self.rng.uniform(0, self.typical[kind] * 1.1))
            command, machine = self.rng.choice(chances)
            pids = [pid for pid in victims(self) if pid] if machine else []
            if command:
                p.kill()
            try:
                if pids:
                    os.kill(self.rng.choice(pids), signal.SIGKILL)
            except ProcessLookupError:
                pass
        status = p.wait()
        if status == 0:
            self.typical[kind] = max(self.typical.get(kind, 0), time.monotonic() - begin)
        self.killed += status != 0
        return status
