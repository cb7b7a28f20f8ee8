#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Live migration a hundred times each (ROUNDS says how often): moved on and on, cancelled, cut, and either end killed, all at
random moments of a whole migration. One side has the whole machine each time. LIMIT_MS fails a move with a longer pause."""
import os
import random
import signal
import statistics
import threading
import time
import unittest

from migrate_test import SEED, Broken

ROUNDS = int(os.environ.get("ROUNDS", "100"))
LIMIT_MS = float(os.environ.get("LIMIT_MS", "inf"))


class Campaign(Broken):
    def setUp(self):
        super().setUp()
        self.rng = random.Random(SEED)
        print("seed", SEED, flush=True)

    def at_random(self, act):
        """Does it some time within a migration, or soon after: that takes about this long."""
        timer = threading.Timer(self.rng.random() * 0.35, act)
        timer.start()
        self.addCleanup(timer.join)
        return timer

    def tell(self, what, count):
        print(f"{what}: {count} of {ROUNDS}", flush=True)

    def test_moved(self):
        m = self.begin()
        pauses = []
        for _ in range(ROUNDS):
            time.sleep(self.rng.random() * 0.2)
            m, answer = self.move(m)
            pauses.append(answer["downtime"])
        self.close(m)
        self.check_disk(self.check_text())
        print(f"stood still: median {statistics.median(pauses)} ms, 99 of 100 within "
              f"{sorted(pauses)[len(pauses) * 99 // 100 - 1]} ms, longest {max(pauses)} ms", flush=True)
        self.assertLessEqual(max(pauses), LIMIT_MS)

    def test_cut(self):
        m = self.begin()
        moved = 0
        for _ in range(ROUNDS):
            there = self.attempt(m, lambda name, towards: "pass")
            timer = self.at_random(lambda: self.line.cut())
            has = self.holder(m, there)
            timer.join()
            self.assertIsNotNone(has)
            moved += has is there
            m = has
        self.tell("moved all the same", moved)
        self.close(m)
        self.check_disk(self.check_text())

    def test_destination_killed(self):
        m = self.begin()
        stayed = 0
        for _ in range(ROUNDS):
            there = self.attempt(m, lambda name, towards: "pass")
            timer = self.at_random(lambda there=there: there.kill(signal.SIGKILL))
            timer.join()
            there.wait()
            self.ended(m)
            if self.state(m) == "running":
                m.expect(r"count \d+ end\n", 60)
                stayed += 1
            else:
                self.assertEqual(self.state(m), "postmigrate")
                m = self.anew(m, there)
        self.tell("stayed", stayed)
        self.close(m)
        self.check_disk(self.check_text())

    def test_source_killed(self):
        m = self.begin()
        taken = 0
        for _ in range(ROUNDS):
            there = self.attempt(m, lambda name, towards: "pass")
            self.at_random(lambda m=m: m.kill(signal.SIGKILL)).join()
            self.wait_for("the source's end", lambda m=m: m.process.poll() is not None)
            state = self.state(there)
            self.assertIn(state, ("running", None))
            if state:
                there.expect(r"count \d+ end\n", 60)
                taken += 1
                m = there
            else:
                m = self.anew(m, there)
        self.tell("went on there", taken)
        self.close(m)


def load_tests(loader, tests, pattern):
    """Only the campaign's own."""
    own = [name for name in vars(Campaign) if name.startswith("test_")]
    os.environ.setdefault("ROUNDS", str(ROUNDS))
    return unittest.TestSuite(Campaign(name) for name in [*own, "test_cancelled_at_random_moments"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
