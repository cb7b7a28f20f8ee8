#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Backups of machines with a guest that writes: each holds what was acknowledged before it was asked for and a whole prefix of
the rest, only what has changed is copied when that is known, and what is restored boots and goes on."""
import os
import random
import signal
import subprocess
import unittest

from backup_case import WRITES, Backing
from machine import ENGINE, Console
from named import Named

SEED = int(os.environ.get("RUCHE_TEST_SEED", random.SystemRandom().randrange(1 << 32)))


class Backups(Backing):
    def take(self, kind, why="", *words, before=None):
        """A backup of that kind; gives its number of records, after a look at what it holds."""
        before = self.told() if before is None else before
        out = self.backup(*words)
        backup = self.manifest()["backups"][-1]
        self.assertEqual((backup["kind"], backup["why"]), (kind, why), out)
        n, _ = self.read_records(self.disk(backup))
        self.assertGreaterEqual(n, before)
        return n

    def test_running(self):
        self.create("web", "--cmdline", WRITES)
        self.start()
        held = [self.take("full")]
        for _ in range(3):
            self.write_more()
            held.append(self.take("incremental"))
            self.assertGreater(held[-1], held[-2])
        self.write_more()
        held.append(self.take("full", "", "--full"))
        held.append(self.take("incremental"))
        backups = self.check_backups()
        self.assertEqual([self.read_records(self.disk(b))[0] for b in backups], held)
        self.assertEqual([b["consistency"] for b in backups], ["crash"] * 6)
        self.assertEqual([b["number"] for b in backups], list(range(1, 7)))
        sizes = [os.path.getsize(self.disk(b)) for b in backups]
        self.assertLess(sizes[1], 1 << 20)

        # Older ones go, and the others hold what they held.
        self.ruche("backup", "prune", "--keep", "4", self.dir)
        self.assertEqual([self.read_records(self.disk(b))[0] for b in self.check_backups()], held[2:])
        self.write_more()
        self.take("incremental")

        # What is restored needs nothing but what it got; the machine it was made of goes on meanwhile.
        self.ruche("backup", "restore", "--at", "4", "--name", "again", self.dir)
        os.rename(self.dir, self.path("elsewhere"))
        os.rename(self.path("data/ruche/images/tiny"), self.path("tiny"))
        self.start("again")
        self.assertGreater(self.told("again"), held[3])
        self.stop("again")
        n, _ = self.read_records(self.layers("again")[0])
        self.assertGreater(n, held[3])
        # It is a machine like any other.
        self.ruche("snapshot", "create", "again", "one")
        self.dir = self.path("another")
        self.backup(name="again")
        self.assertEqual(self.read_records(self.disk(self.manifest()["backups"][0]))[0], n)

    def test_what_breaks_the_chain(self):
        unknown = "disk0: what has changed since the last backup is not known, as "
        self.create("web", "--cmdline", WRITES)
        self.start()
        self.take("full")
        # A snapshot does not.
        self.ruche("snapshot", "create", "web", "one")
        self.write_more()
        at_two = self.take("incremental")
        self.ruche("snapshot", "create", "web", "two")
        self.ruche("snapshot", "create", "web", "three")
        self.write_more()
        self.assertGreater(self.take("incremental"), at_two)
        # Nor does the end of the machine, and it need not run.
        self.stop()
        self.take("incremental")
        self.ruche("snapshot", "create", "web", "four")
        self.take("incremental")
        self.start()
        self.write_more()
        self.take("incremental")
        # Going back does, and a machine that is killed.
        self.ruche("snapshot", "revert", "web", "one")
        self.take("full", unknown + "after going back to a snapshot", before=0)  # its console still tells of what was before
        self.stop()
        self.start()
        self.write_more()
        os.kill(self.inspect("web")["pid"], signal.SIGKILL)
        self.wait_for(lambda: self.inspect("web")["status"] == "died")
        self.take("full", unknown + "the machine was killed")
        self.take("incremental")
        os.unlink(self.disk(self.manifest()["backups"][-1]))
        self.take("full", "disk0: the last backup's file is missing or damaged")

    def test_two_disks_at_one_instant(self):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.path("second"), "16M"], check=True)
        self.create("web", "--disk", self.path("second"))
        self.ruche("start", "web")
        c = Console("web", self.env)
        self.addCleanup(lambda: c.process.poll() is None and c.close())
        c.expect("shell ready\n", 120)
        c.process.stdin.write(b"(while [ ! -e /stop ]; do n=$((n + 1)); for d in vda vdb; do { echo $n; head -c 512 /dev/zero; } | "
                              b"head -c 512 | dd of=/dev/$d bs=512 seek=$n conv=notrunc,fsync 2>/dev/null; done; "
                              b"echo ack $n end; done) &\n")
        c.process.stdin.flush()
        c.expect(r"ack 5 end\n")
        for _ in range(4):
            self.backup()
        c.run("> /stop; wait")
        c.close()
        backups = self.check_backups()
        self.assertEqual([b["kind"] for b in backups], ["full"] + ["incremental"] * 3)
        for b in backups:
            first, second = (self.read_records(self.disk(b, i))[0] for i in (0, 1))
            self.assertIn(first - second, (0, 1))
        self.stop()
        self.ruche("backup", "restore", "--name", "again", self.dir)
        folder = self.inspect("again")["folder"]
        self.assertEqual(self.read_records(folder + "/given-0.qcow2")[0], second)
        self.assertEqual(self.read_records(folder + "/disk.qcow2")[0], first)

    def test_flipped_bits(self):
        print("seed", SEED, flush=True)
        rng = random.Random(SEED)
        self.create("web", "--cmdline", WRITES)
        self.start()
        self.backup()
        self.write_more()
        self.backup()
        self.stop()
        for name in sorted(os.listdir(self.dir)):
            path = os.path.join(self.dir, name)
            for _ in range(3):
                at, bit = rng.randrange(os.path.getsize(path)), 1 << rng.randrange(8)
                with open(path, "r+b") as f:
                    f.seek(at)
                    byte = f.read(1)[0]
                    f.seek(at)
                    f.write(bytes([byte ^ bit]))
                    f.flush()
                    done = subprocess.run([os.environ["RUCHE"], "backup", "verify", self.dir], env=self.env, capture_output=True,
                                          text=True, check=False)
                    self.assertEqual(done.returncode, 125, (name, at, bit))
                    self.assertIn(f"/{name}' ", done.stderr)
                    if name != "backup.json":
                        self.assertIn(f"/{name}' is damaged", self.ruche("backup", "restore", "--name", "x", self.dir, status=125))
                        if name.startswith("1-disk"):
                            self.assertIn("is damaged", self.ruche("backup", "prune", "--keep", "1", self.dir, status=125))
                    f.seek(at)
                    f.write(bytes([byte]))
        self.check_backups()

    def test_the_machine_ends_meanwhile(self):
        self.create("web", "--cmdline", WRITES)
        self.start()
        self.backup()
        pid = self.inspect("web")["pid"]
        p = subprocess.Popen([os.environ["RUCHE"], "backup", "--full", "web", self.dir], env=self.env, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        self.wait_for(lambda: any(name.endswith("qcow2.part") for name in os.listdir(self.dir)) or p.poll() is not None)
        os.kill(pid, signal.SIGKILL)
        _, err = p.communicate(timeout=120)
        if p.returncode:  # else it was quicker
            self.assertIn("backup of machine 'web'", err)
        self.check_backups()
        self.start()


class Debian(Named):
    """With an agent in the guest."""

    def exec(self, name, script):
        return self.ruche("exec", "--timeout", "60", name, "--", "sh", "-c", script)

    def boot(self, name):
        self.ruche("start", name)
        c = self.console(name)
        c.expect("login: ", 180)
        c.close()

    def test_application_consistent(self):
        folder = self.path("backups")
        self.ruche("create", "web", *(["--engine", ENGINE] if ENGINE else []), "--net", "none", "debian")
        self.boot("web")
        self.assertIn("application-consistent", self.ruche("backup", "web", folder))
        self.exec("web", "echo kept >/root/kept")  # is in the guest's memory only, until it is frozen
        self.assertRegex(self.ruche("backup", "web", folder), "incremental, .* application-consistent")
        self.exec("web", "rm -rf /usr/bin")
        self.ruche("rm", "--force", "web")
        self.ruche("backup", "restore", folder)
        self.boot("web")
        self.assertEqual(self.exec("web", "cat /root/kept; systemctl is-system-running --wait >/dev/null; ls /usr/bin | wc -l")[:5],
                         "kept\n")


unittest.main(verbosity=2)
