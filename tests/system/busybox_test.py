#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernel with a busybox initial RAM disk: processors, memory, clock, control socket, the ways to end."""
import time
import unittest

import initramfs
from machine import VMM, Case, Machine, image

CMDLINE = "console=ttyS0 quiet panic=-1"


class Busybox(Case):
    @classmethod
    def setUpClass(cls):
        cls.kernel = image()["kernel"]

    def machine(self, body=initramfs.SHELL, cmdline=CMDLINE, **more):
        return Machine(kernel=self.kernel, initrd=initramfs.make(self.path("initrd"), body), cmdline=cmdline, **more)

    def ready(self, machine):
        machine.expect("init runs", 60)
        machine.expect("shell ready", 20)

    def test_first_line_and_poweroff(self):
        with self.machine("echo one; poweroff -f") as m:
            m.expect("init runs\none\n", 60)
            self.assertEqual(m.wait(), 0)

    def test_processors_and_memory(self):
        for cpus, memory, kib in ((1, "256M", 262144), (2, "512M", 524288), (4, "3G", 3145728)):
            with self.subTest(cpus=cpus, memory=memory), self.machine(cpus=cpus, memory=memory) as m:
                self.ready(m)
                self.assertEqual(m.run("nproc"), str(cpus))
                total = int(m.run("awk '/MemTotal/ {print $2}' /proc/meminfo"))
                self.assertGreater(total, kib * 0.75)
                self.assertLessEqual(total, kib)
                m.send("poweroff -f\n")
                self.assertEqual(m.wait(), 0)

    def test_every_processor_works(self):
        with self.machine(cpus=4) as m:
            self.ready(m)
            sums = m.run("for c in 0 1 2 3; do seq 1 20000 | taskset -c $c md5sum & done; wait", 120)
            self.assertEqual(len(set(line.split()[0] for line in sums.splitlines() if "-" in line)), 1, sums)
            ticks = m.run("grep '^cpu[0-9]' /proc/stat").splitlines()
            self.assertEqual(len(ticks), 4)
            m.send("poweroff -f\n")
            self.assertEqual(m.wait(), 0)

    def test_clock_runs_as_fast_as_the_hosts(self):
        with self.machine() as m:
            self.ready(m)
            guest, host = float(m.run("awk '{print $1}' /proc/uptime")), time.monotonic()
            time.sleep(4)
            guest = float(m.run("awk '{print $1}' /proc/uptime")) - guest
            host = time.monotonic() - host
            self.assertAlmostEqual(guest / host, 1, delta=0.1)
            self.assertLess(abs(int(m.run("date +%s")) - time.time()), 5)

    def test_reset_and_no_reboot(self):
        with self.machine() as m:
            self.ready(m)
            m.send("reboot -f\n")
            self.ready(m)
            m.send("poweroff -f\n")
            self.assertEqual(m.wait(), 0)
        with self.machine("reboot -f", options=["--no-reboot"], qemu_options=["-no-reboot"]) as m:
            self.assertEqual(m.wait(), 0)

    def test_control_socket(self):
        with self.machine() as m:
            self.ready(m)
            self.assertEqual(m.command("query-status")["return"]["status"], "running")
            self.assertEqual(m.command("stop"), {"return": {}})
            self.assertEqual(m.command("query-status")["return"]["status"], "paused")
            self.assertEqual(m.command("cont"), {"return": {}})
            self.assertEqual(m.run("echo still here"), "still here")
            self.assertEqual(m.command("system_reset"), {"return": {}})
            self.ready(m)
            self.assertIn("error", m.command("no-such-command"))
            self.assertEqual(m.command("quit"), {"return": {}})
            m.wait()

    @unittest.skipIf(VMM == "qemu", "QEMU has exit statuses of its own")
    def test_panic_gives_126(self):
        """A kernel without a root file system panics; pvpanic is built into no Debian kernel, so the reset tells."""
        with self.machine("exit 1", cmdline="console=ttyS0 panic=-1", options=["--no-reboot"]) as m:
            m.expect("Kernel panic - not syncing", 60)
            self.assertIn(m.wait(), (0, 126))


unittest.main(verbosity=2)
