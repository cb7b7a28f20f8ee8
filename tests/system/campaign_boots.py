#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's two kernels, unmodified, booted many times in a row on four processors: each boot reaches init and powers off,
and the kernel warns of nothing that it does not also warn of on QEMU's q35.
"""
import collections
import gzip
import os
import statistics
import subprocess
import sys
import time
import unittest

import initramfs
from machine import HERE, VMM, Case, Failed, Machine, warnings

BOOTS = int(os.environ.get("BOOTS", "50"))
BODY = """echo "kernel's log:"
dmesg -r
echo "end of log"
poweroff -f
"""


def kernel(package):
    folder = subprocess.run([os.path.join(HERE, "../debian-package"), package], check=True, stdout=subprocess.PIPE,
                            text=True).stdout.strip()
    boot = os.path.join(folder, "boot")
    return next(os.path.join(boot, name) for name in sorted(os.listdir(boot)) if name.startswith("vmlinuz"))


class Boots(Case):
    def boot(self, vmlinuz, initrd, vmm=VMM):
        """One boot; gives the kernel's warnings and the seconds it took to reach init."""
        with Machine(kernel=vmlinuz, initrd=initrd, cmdline="console=ttyS0", cpus=4, memory="1G", vmm=vmm) as m:
            m.expect("init runs\n", 120)
            took = time.monotonic() - m.started
            log = m.expect(r"kernel's log:\n((?:.|\n)*?)end of log\n", 60).group(1)
            self.assertIn("Linux version", log)
            self.assertIn("Brought up 1 node, 4 CPUs", log)
            self.assertEqual(m.wait(60), 0)
            return warnings(log), took

    def boots(self, package):
        vmlinuz, initrd = kernel(package), self.path("busybox.cpio.gz")
        plain = initramfs.make(self.path("busybox.cpio"), BODY)
        with open(plain, "rb") as f, gzip.open(initrd, "wb", 1) as packed:
            packed.write(f.read())
        known = set()
        for _ in range(3):
            known.update(self.boot(vmlinuz, initrd, "qemu")[0])
        times, new, failures = [], collections.Counter(), []
        for number in range(BOOTS):
            try:
                found, took = self.boot(vmlinuz, initrd)
                times.append(took)
                new.update(line for line in found if line not in known)
            except (Failed, AssertionError) as e:
                failures.append(f"boot {number + 1}: {e}")
        good = len(times)
        print(f"{package}: {good} of {BOOTS} boots reached init and powered off; warnings that QEMU's q35 does not show: "
              f"{dict(new)}; seconds to init: median {statistics.median(times or [0]):.1f}, "
              f"longest {max(times or [0]):.1f}", file=sys.stderr, flush=True)
        self.assertEqual(failures, [])
        self.assertEqual(dict(new), {})

    def test_kernel_for_cloud_machines(self):
        self.boots("linux-image-cloud-amd64")

    def test_full_kernel(self):
        self.boots("linux-image-amd64")


unittest.main(verbosity=2)
