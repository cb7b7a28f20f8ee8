#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian at work on two processors: packages from the network, programs with known results, stress, modules, reboot.

What a program prints in the guest is compared with what the same program prints on the host. After each test the
kernel's log must hold nothing that tells of trouble.
"""
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

from machine import HERE, Machine, trouble

PACKAGES = "openssl python3 perl gcc libc6-dev make stress-ng xfsprogs"
RANDOM_PROGRAMS = 3
STRESS_SECONDS = 60
PROGRAMS = os.path.join(HERE, "programs")


def host(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


class Programs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="ruche-test-")
        cls.addClassCleanup(shutil.rmtree, cls.folder, True)
        seed = int(os.environ.get("SEED", random.getrandbits(31)))
        print(f"SEED={seed}", file=sys.stderr, flush=True)
        cls.sources = []
        for i in range(RANDOM_PROGRAMS):
            cls.sources.append(f"{cls.folder}/random{i}.c")
            with open(cls.sources[-1], "w", encoding="ascii") as f:
                subprocess.run([sys.executable, f"{PROGRAMS}/generate_c.py", str(seed + i)], stdout=f, check=True)
        archive = os.path.join(cls.folder, "programs.tar")
        with tarfile.open(archive, "w") as tar:
            tar.add(PROGRAMS, "programs")
            for source in cls.sources:
                tar.add(source, os.path.basename(source))
        cls.machine = Machine(image="debian", cpus=2, memory="2G", disks=[(archive, "raw")])
        cls.addClassCleanup(cls.machine.__exit__)
        cls.machine.login()
        cls.machine.run("apt-get update -qq", 300)
        cls.machine.run(f"DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends {PACKAGES} "
                        ">/var/log/install 2>&1", 1800)
        cls.machine.run("cd /root && tar xf /dev/vdb")

    def tearDown(self):
        if self.machine.process.poll() is None:
            self.assertEqual(trouble(self.machine.run("dmesg -l emerg,alert,crit,err,warn")), [])

    def test_openssl(self):
        self.assertEqual(self.machine.run("sh programs/check.sh", 300), host("sh", f"{PROGRAMS}/check.sh"))
        rates = self.machine.run("openssl speed -seconds 1 -mr sha256 rsa2048 2>/dev/null; "
                                 "openssl speed -seconds 1 -mr -evp aes-128-gcm 2>/dev/null", 120)
        for line in ("+F:", "+F2:"):
            self.assertIn(line, rates)
        print("\n" + rates, file=sys.stderr)

    def test_python(self):
        self.assertEqual(self.machine.run("python3 programs/check.py", 600), host(sys.executable, f"{PROGRAMS}/check.py"))

    def test_perl(self):
        self.assertEqual(self.machine.run("perl programs/check.pl", 600), host("perl", f"{PROGRAMS}/check.pl"))

    def test_gcc(self):
        """Random programs compiled in the guest print what they print when the host compiles and runs them."""
        for source in self.sources:
            program = source.removesuffix(".c")
            subprocess.run(["gcc", "-w", "-O2", "-ffp-contract=off", source, "-o", program], check=True)
            want = host(program)
            name = os.path.basename(program)
            for level in ("-O0", "-O2", "-O3 -mavx2"):
                with self.subTest(source=name, level=level):
                    got = self.machine.run(f"gcc -w {level} -ffp-contract=off {name}.c -o {name} && ./{name}", 600)
                    self.assertEqual(got, want)

    def test_gcc_and_make_in_parallel(self):
        """The same compilation many times at once gives the same file each time."""
        self.machine.run("printf 'all: $(foreach i,1 2 3 4 5 6 7 8,out$(i).s)\\nout%%.s:\\n\\tgcc -w -O2 -S -o $@ "
                         "random0.c\\n' >Makefile", 10)
        self.machine.run("make -s -j4", 900)
        self.assertEqual(self.machine.run("md5sum out*.s | cut -c1-32 | sort -u | wc -l"), "1")
        self.machine.run("rm out*.s")

    def test_stress(self):
        out = self.machine.run(f"stress-ng --cpu 2 --vm 2 --io 2 --fork 2 --verify -t {STRESS_SECONDS} 2>&1",
                               STRESS_SECONDS * 3 + 120)
        self.assertIn("successful run completed", out)
        self.assertNotIn("fail", out.replace("failed: 0", ""))
        print("\n" + out, file=sys.stderr)

    def test_modules(self):
        for module in ("dummy", "loop", "xfs", "btrfs", "nf_tables", "tun"):
            self.machine.run(f"modprobe {module} && grep -q ^{module} /proc/modules")
        self.machine.run("ip link add d0 type dummy && ip addr add 192.0.2.1/24 dev d0 && ip link set d0 up && "
                         "ping -c 2 -q 192.0.2.1 && ip link del d0 && rmmod dummy")
        self.machine.run("truncate -s 400M /root/fs && losetup /dev/loop0 /root/fs && mkfs.xfs -q /dev/loop0 && "
                         "mount /dev/loop0 /mnt && cp -r /usr/bin /mnt/ && umount /mnt && xfs_repair -n /dev/loop0 && "
                         "losetup -d /dev/loop0", 300)

    def test_reboot(self):
        for _ in range(2):
            self.machine.send("reboot\n")
            self.machine.login()
            self.assertEqual(self.machine.run("systemctl is-system-running --wait", 120), "running")
            self.machine.run("cd /root")

    def test_the_end_by_the_power_button(self):
        """The last in the order of names, as the machine is gone after it."""
        self.assertEqual(self.machine.command("system_powerdown"), {"return": {}})
        self.assertEqual(self.machine.wait(90), 0)


unittest.main(verbosity=2)
