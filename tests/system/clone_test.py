#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Clones with guests: of one that writes, each goes on from the same instant on a disk of its own, whatever becomes of the
others; no two give the same random numbers; a Debian's agent gives it an identity.

CLONES is the number of clones whose time and memory are shown.
"""
import os
import re
import subprocess
import threading
import time
import unittest

import initramfs
from machine import ENGINE, HERE, PATIENCE, RUCHE, Console
from named import Named
from tiny import Tiny

CLONES = int(os.environ.get("CLONES", "12"))
RANDOM = "head -c 16 /dev/urandom | md5sum"


def kernel():
    """Debian's kernel of the common flavour, which knows generation IDs."""
    folder = subprocess.run([os.path.join(HERE, "../debian-package"), "linux-image-amd64"], stdout=subprocess.PIPE, text=True,
                            check=True).stdout.strip()
    name = next(f for f in os.listdir(folder + "/boot") if f.startswith("vmlinuz"))
    return os.path.join(folder, "boot", name)


def proportional_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return int(re.search(r"^Pss: *(\d+)", f.read(), re.MULTILINE).group(1))


class Clones(Tiny):
    def console(self, name):
        c = Console(name, self.env)
        self.addCleanup(lambda: c.process.poll() is None and c.close())
        return c

    def boot(self, name):
        self.ruche("start", name)
        c = self.console(name)
        c.expect("shell ready\n", 120)
        return c


class Disks(Clones):
    def start_writing(self, c):
        """Until it has told of some records."""
        c.process.stdin.write(b"uptime=here; writer &\n")
        c.process.stdin.flush()
        while self.last(c) < 20:
            c.expect(r"ack \d+ end\n")

    def last(self, c):
        return int((re.findall(r"ack (\d+) end\n", c.text) or [0])[-1])

    def stop_writing(self, c):
        c.run("> /stop; wait")
        return self.last(c)

    def check_records(self, c, last):
        """All that it told of are there, and none of another machine's."""
        self.assertEqual(c.run(f"records {last} {last + 500}"), "records looked at")

    def test_running(self):
        self.create("web")
        web = self.boot("web")
        self.start_writing(web)
        low = self.last(web)
        self.ruche("clone", "--count", "2", "web", "c")
        web.run("true")
        high = self.last(web)
        clones = {name: self.console(name) for name in ("c-1", "c-2")}
        wrote = {}
        for name, c in clones.items():
            c.expect(r"ack (\d+) end\n")
            self.assertGreaterEqual(self.last(c), low)
            wrote[name] = self.stop_writing(c)
            self.assertEqual(c.run("echo $uptime"), "here")
            self.check_records(c, wrote[name])
            self.check_layers(name)
            c.run(f"echo {name} | dd of=/dev/vda bs=512 seek=60000 conv=notrunc,fsync 2>/dev/null")
        last = self.stop_writing(web)
        self.assertGreaterEqual(last, high)
        self.check_records(web, last)
        self.assertEqual(web.run("dd if=/dev/vda bs=512 skip=60000 count=1 2>/dev/null | tr -d '\\0'"), "")
        web.close()
        self.ruche("rm", "--force", "web")

        # Snapshots of a clone, with the other one gone, and with it a start from power-off.
        c = clones["c-1"]
        self.ruche("snapshot", "create", "c-1", "one")
        c.run("uptime=later")
        c.close()
        clones["c-2"].close()
        self.ruche("rm", "--force", "c-2")
        self.ruche("snapshot", "revert", "c-1", "one")
        c = self.console("c-1")
        self.assertEqual(c.run("echo $uptime"), "here")
        c.close()
        self.ruche("stop", "--force", "--timeout", "0", "c-1")
        self.ruche("snapshot", "rm", "c-1", "one")
        self.check_layers("c-1")
        os.unlink(self.inspect("c-1")["console"])
        c = self.boot("c-1")
        self.assertEqual(c.run("dd if=/dev/vda bs=512 skip=60000 count=1 2>/dev/null | tr -d '\\0'"), "c-1")
        self.check_records(c, wrote["c-1"])

    def test_copied(self):
        """Copies of the disk with the memory of that instant; of a snapshot; and without memory."""
        self.create("web")
        web = self.boot("web")
        web.run("uptime=here; echo data | dd of=/dev/vda bs=512 conv=notrunc,fsync 2>/dev/null")
        self.ruche("snapshot", "create", "web", "one")
        web.run("uptime=later; echo other | dd of=/dev/vda bs=512 conv=notrunc,fsync 2>/dev/null")
        self.ruche("clone", "--full", "web", "full")
        self.ruche("clone", "--full", "--snapshot", "one", "web", "early")
        self.ruche("clone", "--cold", "web", "cold")
        web.close()
        self.ruche("rm", "--force", "web")
        show = "echo $uptime; dd if=/dev/vda bs=512 count=1 2>/dev/null | tr -d '\\0'"
        for name, said in (("full", "later\nother"), ("early", "here\ndata")):
            c = self.console(name)
            self.assertEqual(c.run(show), said)
            c.close()
        self.assertEqual(self.boot("cold").run(show), "other")


class Memory(Clones):
    def setUp(self):
        super().setUp()
        self.ruche("create", "web", *(["--engine", ENGINE] if ENGINE else []), "--memory", "512M", "--kernel", kernel(), "--initrd",
                   initramfs.make(self.path("initrd")), "--cmdline", "console=ttyS0 quiet panic=-1")

    def random(self, name):
        c = self.console(name)
        said = c.run(RANDOM)
        c.close()
        return said

    def test_random_numbers(self):
        c = self.boot("web")
        c.run(RANDOM)
        time.sleep(1)  # until it is idle
        before = proportional_kib(self.inspect("web")["pid"])
        begin = time.monotonic()
        self.ruche("clone", "--count", str(CLONES), "web", "c")
        started = time.monotonic()
        said = [c.run(RANDOM)]
        names = [f"c-{i + 1}" for i in range(CLONES)]
        said += [self.random(name) for name in names]
        answered = time.monotonic()
        self.assertEqual(len(set(said)), CLONES + 1, said)
        machines = [self.inspect(name) for name in ("web", *names)]
        for one in (lambda m: m["uuid"], lambda m: m["config"]["nets"][0]["mac"]):
            self.assertEqual(len({one(m) for m in machines}), CLONES + 1)
        after = sum(proportional_kib(m["pid"]) for m in machines)
        print(f"{CLONES} clones of 512 MiB: running after {started - begin:.1f} s, all have answered after {answered - begin:.1f} s, "
              f"{(after - before) / 1024 / CLONES:.1f} MiB more proportional memory each", flush=True)

    def test_snapshots(self):
        """Each time that a machine goes back it is told so."""
        c = self.boot("web")
        self.ruche("snapshot", "create", "web", "one")
        said = [c.run(RANDOM)]
        c.close()
        for _ in range(2):
            self.ruche("snapshot", "revert", "web", "one")
            said.append(self.random("web"))
        self.assertEqual(len(set(said)), 3, said)


class Debian(Named):
    SHOW = {"host name": "hostname", "/etc/hostname": "cat /etc/hostname", "machine-id": "cat /etc/machine-id",
            "address": "cat /sys/class/net/en*/address", "ssh key": "cat /etc/ssh/ssh_host_ed25519_key.pub", "random": RANDOM}

    def exec(self, name, command):
        return self.ruche("exec", name, "--", "sh", "-c", command).strip()

    def try_exec(self, name):
        done = subprocess.run([RUCHE, "exec", name, "--", "true"], env=self.env, capture_output=True, check=False)
        return done.returncode == 0

    def wait_until(self, condition):
        deadline = time.monotonic() + 180 * PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.2)

    def clone(self, names):
        """Clones the machine and gives the time until all have answered."""
        begin = time.monotonic()
        times = {}

        def ask(name):
            self.wait_until(lambda: self.try_exec(name))
            times[name] = time.monotonic() - begin
        threads = [threading.Thread(target=ask, args=(name,)) for name in names]
        for t in threads:
            t.start()
        done = subprocess.run([RUCHE, "clone", "web", *names], env=self.env, capture_output=True, text=True, check=False,
                              timeout=300 * PATIENCE)
        for t in threads:
            t.join()
        self.assertEqual((done.returncode, done.stderr.splitlines()[1:]), (0, []))
        return max(times.values()), time.monotonic() - begin

    def test_identity(self):
        self.ruche("create", "web", *(["--engine", ENGINE] if ENGINE else []), "--memory", "512M", "debian")
        self.ruche("start", "web")
        self.wait_until(lambda: self.try_exec("web"))
        self.exec("web", "ssh-keygen -A; echo word >/root/file; sync")
        names = ["one", "two", "three"]
        answered, renewed = self.clone(names)
        print(f"{len(names)} clones of Debian: all have answered after {answered:.1f} s, have an identity after {renewed:.1f} s",
              flush=True)
        machines = [self.inspect(name) for name in ("web", *names)]
        for m in machines[1:]:
            self.wait_until(lambda m=m: self.exec(m["name"], "ls /etc/ssh | grep -c '^ssh_host_.*_key.pub$' || true") == "3")
        for what, command in self.SHOW.items():
            said = [self.exec(m["name"], command) for m in machines]
            self.assertEqual(len(set(said)), len(machines), (what, said))
        for m in machines[1:]:
            self.assertEqual(self.exec(m["name"], "hostname"), m["name"])
            self.assertEqual(self.exec(m["name"], "getent hosts " + m["name"]).split()[1:], [m["name"]])
            self.assertEqual(self.exec(m["name"], "cat /etc/machine-id"), m["uuid"].replace("-", ""))
            self.assertEqual(self.exec(m["name"], self.SHOW["address"]), m["config"]["nets"][0]["mac"])
            self.assertEqual(self.exec(m["name"], "cat /root/file"), "word")
            self.assertLess(abs(int(self.exec(m["name"], "date +%s")) - time.time()), 10 * PATIENCE)
            # By its own address it still reaches the network's gateway.
            self.wait_until(lambda m=m: self.exec(m["name"], "ping -c 1 -W 2 10.0.2.2 >/dev/null && echo ok || true") == "ok")
        # One that boots has a machine-id of its own as well.
        self.ruche("clone", "--cold", "web", "booted")
        self.ruche("start", "booted")
        self.wait_until(lambda: self.try_exec("booted"))
        self.assertEqual(self.exec("booted", "cat /etc/machine-id; cat /root/file").split(),
                         [self.inspect("booted")["uuid"].replace("-", ""), "word"])

    def test_seed(self):
        """A clone that boots is told by its seed that it is another one. The guest's program is this tree's."""
        self.ruche("create", "web", *(["--engine", ENGINE] if ENGINE else []), "--memory", "512M", "--hostname", "first", "debian")
        self.ruche("start", "web")
        self.wait_until(lambda: self.try_exec("web"))
        self.ruche("cp", os.path.join(HERE, "../../src/cli/guest/ruche-seed"), "web:/root/ruche-seed")
        show = "perl /root/ruche-seed apply && cat /etc/hostname && (cat /etc/ssh/ssh_host_*_key.pub || true) 2>/dev/null | wc -l"
        self.assertEqual(self.exec("web", show).split(), ["first", "0"])
        self.exec("web", "ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; sync")
        self.assertEqual(self.exec("web", show).split(), ["first", "1"])
        self.ruche("stop", "--force", "--timeout", "0", "web")
        self.ruche("clone", "web", "second")
        self.ruche("start", "second")
        self.wait_until(lambda: self.try_exec("second"))
        self.assertEqual(self.exec("second", show).split(), ["second", "0"])


unittest.main(verbosity=2)
