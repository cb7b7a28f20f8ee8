#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 of a machine in the middle of what it writes, again and again on the same disks: whatever the guest was told is
on the disk, is on the disk, and qemu-img check finds nothing wrong.

Four programs in the guest write numbered records and flush each: two straight to one qcow2 disk, two to files of an ext4
file system on another (programs/fsync.pl). What they acknowledge on the console is looked for afterwards: on the device by
the host, in the files by the next machine.
"""
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import unittest

from machine import HERE, Case, Machine, trouble

ROUNDS = int(os.environ.get("ROUNDS", "20"))
DEVICE, FILES = ("1", "2"), ("3", "4")  # the workers
SLOTS, SLOT = 4096, 65536
# What a worker said last goes down with the machine: so far ahead of what was heard of it may it have been.
UNHEARD = 512


def record(worker, number):
    """As programs/fsync.pl makes it."""
    return b"".join(b"%-31s|" % f"{worker} {number} {i}".encode() * 16 for i in range(number * 7919 % 128 + 1))


def check(disk):
    """Fails if qemu-img check finds an error; gives the number of leaked clusters, which a killed writer may leave."""
    deadline = time.monotonic() + 30
    while True:
        p = subprocess.run(["qemu-img", "check", "--output", "json", disk], capture_output=True, check=False)
        # The host may still be at ending the killed process, and its locks go last.
        if b"lock" not in p.stderr or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    sys.stderr.write(p.stderr.decode(errors="replace"))
    result = json.loads(p.stdout)
    if p.returncode not in (0, 3) or result.get("corruptions") or result.get("check-errors"):
        raise AssertionError(f"qemu-img check of {disk} gave {p.returncode}: {result}")
    return result.get("leaks", 0)


class Kill(Case):
    def setUp(self):
        super().setUp()
        self.device, self.files = self.path("device.qcow2"), self.path("files.qcow2")
        for disk in (self.device, self.files):
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "2G"], check=True)
        self.program = self.path("program.raw")
        with open(os.path.join(HERE, "programs", "fsync.pl"), "rb") as f, open(self.program, "wb") as out:
            text = f.read()
            out.write(text + b"\n" * (-len(text) % 512))
        self.safe = dict.fromkeys(DEVICE + FILES, 0)

    def machine(self):
        return Machine(image="debian", cpus=2, memory="512M",
                       disks=[(self.program, "raw"), (self.device, "qcow2"), (self.files, "qcow2")])

    def verify_files(self, m):
        """In a new machine: the journal is replayed, the file system is whole, no acknowledged record is missing."""
        m.run("cp /dev/vdb fsync.pl")
        m.run("blkid /dev/vdd || mkfs.ext4 -q /dev/vdd", 120)
        m.run("mount /dev/vdd /mnt && umount /mnt && e2fsck -fn /dev/vdd && mount /dev/vdd /mnt", 120)
        for worker in FILES:
            m.run(f"perl fsync.pl verify /mnt {worker} {self.safe[worker]}", 120)

    def verify_device(self):
        raw = self.path("device.raw")
        subprocess.run(["qemu-img", "convert", "-O", "raw", self.device, raw], check=True)
        with open(raw, "rb") as f:
            for worker in DEVICE:
                last = self.safe[worker]
                # Later records may be in the slots of the first ones, one of them half written.
                for number in range(max(1, last + 1 + UNHEARD - SLOTS), last + 1):
                    f.seek((int(worker) * SLOTS + number % SLOTS) * SLOT)
                    want = record(worker, number)
                    self.assertEqual(f.read(len(want)), want, f"record {number} of worker {worker} is lost")
        os.unlink(raw)

    def write(self, m, seconds):
        """Lets the workers write for so long, then kills; notes what was acknowledged."""
        for workers, what, place in ((DEVICE, "device", "/dev/vdc"), (FILES, "files", "/mnt")):
            for worker in workers:
                m.send(f"perl fsync.pl {what} {place} {worker} {self.safe[worker]} &\n")
        start = len(m.text)
        m.expect(r"safe \d+ \d+\n", 60)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not m.read_more(until):
                break
        m.kill(signal.SIGKILL)
        m.wait()
        for worker, number in re.findall(r"^safe (\d) (\d+)$", m.text[start:m.text.rindex("\n")], re.MULTILINE):
            self.safe[worker] = max(self.safe[worker], int(number))

    def test_nothing_acknowledged_is_lost(self):
        for turn in range(ROUNDS):
            before = dict(self.safe)
            with self.machine() as m:
                m.login()
                self.verify_files(m)
                self.assertEqual(trouble(m.run("dmesg -l emerg,alert,crit,err,warn")), [])
                seconds = random.uniform(0.2, 5)
                self.write(m, seconds)
            leaks = check(self.device), check(self.files)
            self.verify_device()
            print(f"round {turn + 1}: killed after {seconds:.2f} s; {[self.safe[w] - before[w] for w in self.safe]} "
                  f"records, {leaks} leaked clusters", file=sys.stderr, flush=True)
        self.assertGreater(min(self.safe.values()), ROUNDS)
        with self.machine() as m:
            m.login()
            self.verify_files(m)
            m.send("poweroff\n")
            self.assertEqual(m.wait(90), 0)
        check(self.device), check(self.files)


unittest.main(verbosity=2)
