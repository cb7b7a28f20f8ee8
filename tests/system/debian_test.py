#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The image `debian`: reaches its shell, all services run, network and disk work, it reboots and powers off.

With RUCHE_LONG set (`./dev check-long`) more data goes over disk and network.
"""
import os
import subprocess
import unittest

from machine import Case, Machine, free_port, sha256

DISK_MIB, NET_MIB = (1024, 256) if "RUCHE_LONG" in os.environ else (64, 32)


def random_file(path, mib):
    with open(path, "wb") as f:
        for _ in range(mib):
            f.write(os.urandom(1 << 20))


class Debian(Case):
    def check_system(self, m):
        self.assertEqual(m.run("systemctl is-system-running --wait", 120), "running")
        self.assertIn("cloud-amd64", m.run("uname -r"))

    def test_boot_network_reboot_poweroff(self):
        with Machine(image="debian", cpus=2, memory="1G") as m:
            m.login()
            self.check_system(m)
            address = m.run("for i in $(seq 30); do ip -4 -br addr show scope global | grep -w UP && break; sleep 1; done")
            self.assertIn("10.0.2.", address)
            m.run("apt-get update -qq", 300)
            m.run("modprobe loop && grep -w loop /proc/modules")
            self.assertEqual(m.run("perl -e 'print 6*7'"), "42")
            m.send("reboot\n")
            m.login()
            self.check_system(m)
            m.send("poweroff\n")
            self.assertEqual(m.wait(90), 0)

    def test_disk_keeps_what_was_written(self):
        """Random data written by the guest to raw and qcow2 disks is what the host reads, and the other way round."""
        source = self.path("source.raw")
        random_file(source, DISK_MIB)
        raw, qcow2 = self.path("d.raw"), self.path("d.qcow2")
        subprocess.run(["truncate", "-s", f"{DISK_MIB}M", raw], check=True)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", qcow2, f"{DISK_MIB}M"], check=True)
        disks = [(source, "raw"), (raw, "raw"), (qcow2, "qcow2")]
        with Machine(image="debian", memory="1G", cpus=2, disks=disks) as m:
            m.login()
            want = sha256(source)
            self.assertEqual(m.run("sha256sum </dev/vdb", 300).split()[0], want)
            m.run("dd if=/dev/vdb of=/dev/vdc bs=1M oflag=direct status=none", 300)
            m.run("dd if=/dev/vdb of=/dev/vdd bs=60k conv=fsync status=none", 300)
            m.run("echo 3 >/proc/sys/vm/drop_caches")
            self.assertEqual(m.run("sha256sum </dev/vdd", 300).split()[0], want)
            m.send("poweroff\n")
            self.assertEqual(m.wait(90), 0)
        self.assertEqual(sha256(raw), want)
        subprocess.run(["qemu-img", "check", "-q", qcow2], check=True)
        subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", source, qcow2], check=True)

    def test_network_carries_what_was_sent(self):
        """Both directions over ssh through a forwarded port, compared by checksum; then the power button."""
        key, port = self.path("key"), free_port()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        with open(key + ".pub", encoding="ascii") as f:
            public = f.read().strip()
        data = self.path("data")
        random_file(data, NET_MIB)
        ssh = ["ssh", "-q", "-i", key, "-p", str(port), "-o", "StrictHostKeyChecking=no", "-o",
               "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60", "root@127.0.0.1"]
        with Machine(image="debian", memory="1G", forward={port: 22}) as m:
            m.login()
            m.run(f"mkdir -p /root/.ssh && echo '{public}' >/root/.ssh/authorized_keys")
            self.check_system(m)
            with open(data, "rb") as f:
                subprocess.run(ssh + ["cat >/root/up"], stdin=f, check=True, timeout=600)
            self.assertEqual(m.run("sha256sum </root/up", 180).split()[0], sha256(data))
            with open(self.path("down"), "wb") as f:
                subprocess.run(ssh + ["cat /root/up"], stdout=f, check=True, timeout=600)
            self.assertEqual(sha256(self.path("down")), sha256(data))
            self.assertEqual(m.command("system_powerdown"), {"return": {}})
            self.assertEqual(m.wait(90), 0)


unittest.main(verbosity=2)
