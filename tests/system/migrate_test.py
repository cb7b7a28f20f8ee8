#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Live migration: back and forth under load, cancelled, cut and killed at each step and at random moments: one side, and only
one, has the machine; what is refused. Connections of the user-mode network do not survive, so none is looked at."""
import os
import random
import shutil
import signal
import subprocess
import time
import unittest

from machine import PATIENCE
from moving import KINDS, Incoming, Line, Moving

LONG = int(os.environ.get("RUCHE_LONG", "1")) > 1
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1 << 32)


class BackAndForth(Moving):
    def trip(self, moves, cpus=1, **options):
        m = self.begin(cpus=cpus)
        pauses = []
        for i in range(moves):
            time.sleep(0.3)
            m, answer = self.move(m, **options)
            pauses.append(answer["downtime"])
            print(f"move {i}: stood still for {answer['downtime']} ms, {answer['ram']['transferred'] >> 20} MiB sent, "
                  f"{answer['ram']['dirty-pages-rate'] * 4096 >> 20} MiB/s written", flush=True)
        self.close(m)
        count = self.check_text()
        self.check_disk(count)
        self.assertGreater(count, 3 * moves)
        print(f"pauses: {sorted(pauses)} ms", flush=True)

    def test_one_processor(self):
        self.trip(10)

    def test_two_processors_packed(self):
        self.trip(5, cpus=2, **{"ruche-compression": "zstd"})

    def test_slow_line(self):
        """With less than the guest writes only a guest that is slowed down can be moved."""
        m = self.begin()
        m, answer = self.move(m, capabilities=["auto-converge"],
                              **{"max-bandwidth": 20 << 20, "cpu-throttle-initial": 50, "cpu-throttle-increment": 20})
        self.assertGreater(answer["total-time"], 1000)
        self.close(m)
        self.check_disk(self.check_text())

    def test_paused_machine(self):
        m = self.begin()
        m.command("stop")
        path = self.address()
        there = self.receive(path)
        m.command("migrate", uri="unix:" + path)
        self.assertEqual(self.ended(m)["status"], "completed")
        self.assertEqual(self.state(there), "paused")
        for command in ("cont", "ruche-save"):
            self.assertIn("error", m.command(command, **({"path": self.path("saved")} if command != "cont" else {})))
        m.command("system_reset")
        self.assertEqual(self.state(m), "postmigrate")
        self.close(m)
        there.command("cont")
        there.expect(r"count \d+ end\n", 60)
        self.close(there)
        self.check_disk(self.check_text())

    def test_reset_meanwhile(self):
        """A guest that resets while it is moved boots, here or there."""
        m = self.begin()
        path = self.address()
        there = self.receive(path)
        self.settings(m, **{"max-bandwidth": 60 << 20})
        m.command("migrate", uri="unix:" + path)
        time.sleep(0.5)
        m.command("system_reset")
        self.settings(m, **{"max-bandwidth": 0})
        self.assertEqual(self.ended(m)["status"], "completed")
        self.close(m)
        there.expect("count 3 end\n", 60)
        self.assertNotIn("WRONG", there.text)


class Refused(Moving):
    def refuse(self, source, there, text):
        answer = self.ended(source)
        self.assertEqual(answer["status"], "failed")
        self.assertIn(text, answer["error-desc"])
        self.assertIsNone(self.state(there))
        self.assertEqual(self.state(source), "running")
        self.assertEqual(answer["ram"]["normal"], 0, "memory was sent")

    def test_disks(self):
        m = self.begin()
        other, small = self.path("other.qcow2"), self.path("small.qcow2")
        shutil.copy(self.disk, other)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", small, "1M"], check=True)
        for words, text in ((["--disk", other], "nobody has"), (["--disk", self.path("none")], "No such file"),
                            (["--disk", small], "nobody has"), (["--disk", other, "--disk", small], "--disk is given 2 times"),
                            (["--net", "user", "--net", "user"], "--net is given 2 times")):
            path = self.address()
            there = self.receive(path, *words)
            m.command("migrate", uri="unix:" + path)
            self.refuse(m, there, text)
        holder = self.begin_other(small)
        path = self.address()
        there = self.receive(path, "--disk", small)
        m.command("migrate", uri="unix:" + path)
        self.refuse(m, there, "bytes instead of")
        holder.__exit__()
        m, _ = self.move(m)
        self.close(m)
        self.check_disk(self.check_text())

    def begin_other(self, disk):
        """A machine that only has a disk open."""
        mine, self.disk = self.disk, disk
        try:
            return self.begin()
        finally:
            self.disk = mine

    def test_nobody_there(self):
        m = self.begin()
        m.command("migrate", uri="unix:" + self.path("nobody"))
        answer = self.ended(m)
        self.assertEqual(answer["status"], "failed")
        self.assertIn("No such file", answer["error-desc"])
        self.assertIn("no address", m.command("migrate", uri="nonsense")["error"]["desc"])
        m.expect(r"count \d+ end\n", 60)

    def test_what_is_no_stream(self):
        """Whoever speaks another language is told from a source, and the destination ends."""
        for words in (b"GET / HTTP/1.0\r\n\r\n" * 3, b"", os.urandom(100)):
            path = self.address()
            there = self.receive(path)
            done = subprocess.run(["socat", "-", "UNIX-CONNECT:" + path], input=words, capture_output=True, timeout=60 * PATIENCE,
                                  check=False)
            self.assertEqual(done.returncode, 0)
            self.assertEqual(there.wait(), 125)


class Broken(Moving):
    """Whatever happens to the line and the two processes."""

    def attempt(self, source, look, before=()):
        """A move over a line that is looked at; gives the destination."""
        path, beyond = self.address(), self.address()
        there = self.there = self.receive(beyond, before=before)
        self.line = Line(path, beyond, look)
        self.addCleanup(self.line.close)
        source.command("migrate", uri="unix:" + path)
        return there

    def holder(self, source, there):
        """The only one that has the machine, running; the other's text is kept. None when it is gone on both sides."""
        self.ended(source)
        states = self.state(source), self.state(there)
        self.assertIn(states, (("running", None), ("postmigrate", "running"), (None, "running"), ("postmigrate", None),
                               (None, None)), self.line.seen[-5:])
        has = source if states[0] == "running" else there if states[1] == "running" else None
        if has:
            has.expect(r"count \d+ end\n", 60)
        if has is there:
            self.close(source)
        return has

    def cases(self):
        """What happens to each frame, on its way: one of three things, or, where there is time, all of them."""
        everything = ("cut", "half", "last")
        rng = random.Random(SEED)
        print("seed", SEED, flush=True)
        for kind in KINDS[1:-1]:
            for what in everything if LONG else rng.sample(everything, 1):
                yield kind, what

    def test_cut_at_each_frame(self):
        m = self.begin()
        for kind, what in self.cases():
            with self.subTest(kind=kind, what=what):
                there = self.attempt(m, lambda name, towards, kind=kind, what=what: what if name == kind else "pass")
                has = self.holder(m, there)
                self.assertIsNotNone(has)
                if kind not in ("READY", "GO", "RUNNING"):
                    self.assertIs(has, m)
                if kind == "RUNNING":
                    self.assertIs(has, there)
                m = has
        self.close(m)
        self.check_disk(self.check_text())

    def killing(self, kind, what, victim):
        """Kills one end at a frame."""
        def look(name, _):
            if name != kind:
                return "pass"
            victim()
            return what
        return look

    def test_destination_killed_at_each_frame(self):
        m = self.begin()
        for kind, what in self.cases():
            with self.subTest(kind=kind, what=what):
                there = self.attempt(m, self.killing(kind, what, lambda: self.there.kill(signal.SIGKILL)))
                has = self.holder(m, there)
                if has is None:  # it had it, and died
                    self.assertIn(kind, ("GO", "RUNNING"))
                    m = self.anew(m)
                else:
                    self.assertIs(has, m)
        self.close(m)

    def anew(self, *old):
        for machine in old:
            machine.__exit__()
        self.text = ""
        return self.begin()

    def test_source_killed_at_each_frame(self):
        m = self.begin()
        for kind, what in self.cases():
            with self.subTest(kind=kind, what=what):
                there = self.attempt(m, self.killing(kind, what, lambda m=m: m.kill(signal.SIGKILL)))
                self.wait_for("the source's end", lambda m=m: m.process.poll() is not None)
                state = self.state(there)
                self.assertIn(state, ("running", None))
                if kind in ("GO", "RUNNING"):
                    self.assertEqual(state, "running")
                if state:
                    there.expect(r"count \d+ end\n", 60)
                    self.assertNotIn("WRONG", there.text)
                    m = there
                else:
                    self.assertNotIn(kind, ("GO", "RUNNING"))
                    m = self.anew(m, there)
        self.close(m)

    def test_cancelled_at_random_moments(self):
        rng = random.Random(SEED)
        print("seed", SEED, flush=True)
        m = self.begin()
        cancelled = 0
        for _ in range(int(os.environ.get("ROUNDS", "10"))):
            there = self.attempt(m, lambda name, towards: "pass")
            time.sleep(rng.random() * 0.3)
            m.command("migrate_cancel")
            answer = self.ended(m)
            self.assertIn(answer["status"], ("cancelled", "completed"), answer)
            cancelled += answer["status"] == "cancelled"
            has = self.holder(m, there)
            self.assertIs(has, m if answer["status"] == "cancelled" else there)
            m = has
        print(cancelled, "were cancelled", flush=True)
        self.close(m)
        self.check_disk(self.check_text())

    def test_two_hosts(self):
        """In a network of its own the destination does not see the claim's name: the lock of the disk decides."""
        apart = ["unshare", "--user", "--map-root-user", "--net"]
        subprocess.run([*apart, "true"], check=True)
        m = self.begin()
        for kind, what in [(k, w) for k, w in self.cases() if k in ("READY", "GO", "RUNNING")]:
            with self.subTest(kind=kind, what=what):
                there = self.attempt(m, lambda name, towards, kind=kind, what=what: what if name == kind else "pass",
                                     before=[] if isinstance(m, Incoming) and m.before else apart)
                m = self.holder(m, there)
                self.assertIsNotNone(m)
        self.close(m)
        self.check_disk(self.check_text())


if __name__ == "__main__":
    unittest.main(verbosity=2)
