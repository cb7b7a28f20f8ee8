#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Saved machines: guests that go on in another process, at random moments; disks and networks in use; what is refused."""
import functools
import http.server
import json
import os
import random
import re
import resource
import shutil
import struct
import subprocess
import tempfile
import threading
import time
import unittest

import initramfs
from machine import PATIENCE, RUCHE, Case, Machine, Restored, image

CMDLINE = "console=ttyS0 quiet panic=-1"
# Counts without a pause, while other processes compute checksums that must not change.
WORK = """
sums() {
    good=$(sha256sum < /bin/busybox)
    while true; do
        [ "$(sha256sum < /bin/busybox)" = "$good" ] || echo "WRONG SUM"
    done
}
for i in $(seq $(nproc)); do sums & done
n=0; while true; do n=$((n + 1)); echo "count $n end"; sleep 0.02; done
"""
# Writes to memory without end, and looks whether it is still what was written.
REWRITE = WORK.replace("for i in", """
copies() {
    good=$(head -c 16000000 /dev/urandom | tee /tmp/copy0 | sha256sum)
    while true; do
        for i in 0 1 2; do cat /tmp/copy$i > /tmp/copy$((i + 1)); done
        [ "$(sha256sum < /tmp/copy3)" = "$good" ] || echo "WRONG COPY"
    done
}
copies &
for i in""", 1)
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1 << 32)


def crc32c_table():
    table = []
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ (0x82f63b78 if i & 1 else 0)
        table.append(i)
    return table


TABLE = crc32c_table()


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xff]
    return crc ^ 0xffffffff


class SavedFile:
    """The file as docs/saved-machine.md describes it, for tests that change it and make the checksums right again."""

    NAMES = {1: "description", 2: "state", 3: "pages", 4: "memory"}

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as f:
            self.header = bytearray(f.read(4096))
        self.count = struct.unpack_from("<I", self.header, 20)[0]
        self.sections = {}
        for i in range(self.count):
            kind, _, offset, length = struct.unpack_from("<IIQQ", self.header, 32 + 24 * i)
            self.sections[self.NAMES[kind]] = [i, offset, length]

    def read(self, name):
        _, offset, length = self.sections[name]
        with open(self.path, "rb") as f:
            f.seek(offset)
            return f.read(length)

    def replace(self, name, data):
        """Puts the section at the end of the file."""
        index = self.sections[name][0]
        with open(self.path, "r+b") as f:
            offset = f.seek(0, os.SEEK_END)
            f.write(data)
        struct.pack_into("<IQQ", self.header, 32 + 24 * index + 4, crc32c(data), offset, len(data))
        struct.pack_into("<Q", self.header, 24, offset + len(data))
        self.seal()

    def seal(self):
        struct.pack_into("<I", self.header, 4092, crc32c(self.header[:4092]))
        with open(self.path, "r+b") as f:
            f.write(self.header)


class Save(Case):
    @classmethod
    def setUpClass(cls):
        cls.image = image()

    def machine(self, body=initramfs.SHELL, **more):
        initrd = initramfs.make(self.path("initrd"), body)
        more.setdefault("memory", "256M")
        return Machine(kernel=self.image["kernel"], initrd=initrd, cmdline=CMDLINE, vmm="ruche", **more)

    def ruche(self, *words, status=0, **more):
        p = subprocess.run([RUCHE, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           timeout=120 * PATIENCE, check=False, **more)
        self.assertEqual(p.returncode, status, p.stderr)
        return p.stderr

    def save(self, machine, path, *options, **more):
        return self.ruche("save", *options, machine.control, path, **more)

    def end(self, machine):
        """Saves were made with --end: the rest of the console's text, and its end."""
        self.assertEqual(machine.wait(), 130)

    def refused(self, path, *options):
        """Gives the one line that says why."""
        line = self.ruche("run", "--control", self.path("refused"), "--restore", path, *options, status=125)
        self.assertEqual(len(line.splitlines()), 1, line)
        return line


class RoundTrips(Save):
    def check_text(self, text):
        """Over all processes, the guest's counting has neither gap nor repetition."""
        self.assertNotIn("WRONG", text)
        numbers = [int(n) for n in re.findall(r"count (\d+) end\n", text)]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))

    def trip(self, cpus, moments):
        rng = random.Random(SEED)
        path, text = self.path("saved"), ""
        with self.machine(WORK, cpus=cpus) as m:
            m.expect("count 5 end\n", 90)
            for i in range(moments):
                time.sleep(rng.random() * 0.7)
                self.save(m, path, "--end")
                self.end(m)
                text += m.text
                m.__exit__()
                m = Restored(path, "--verify") if i % 2 else Restored(path)
                m.expect(r"count \d+ end\n(.*\n){3}", 60)
            time.sleep(0.5)
            self.save(m, path, "--end")
            self.end(m)
            text += m.text
            m.__exit__()
        start = text.index("count 1 end")
        self.check_text(text[start:])
        self.assertGreater(text.count("count"), 5 + 3 * moments)

    def test_one_processor(self):
        print("seed", SEED, flush=True)
        self.trip(1, 10)

    def test_two_processors(self):
        print("seed", SEED, flush=True)
        self.trip(2, 10)

    def test_while_it_runs(self):
        """The machine goes on while it is saved; what is saved is whole."""
        rng, path = random.Random(SEED), self.path("saved")
        print("seed", SEED, flush=True)
        with self.machine(REWRITE, cpus=2) as m:
            m.expect("count 30 end\n", 120)
            for i in range(5):
                time.sleep(rng.random() * 0.7)
                before = int(re.findall(r"count (\d+) end\n", m.text)[-1])
                self.save(m, path)
                answer = m.command("query-ruche-save")["return"]
                print(f"pause {answer['pause'] / 1000:.1f} ms, {answer['bytes'] >> 20} MiB written", flush=True)
                m.at = len(m.text)
                m.expect(r"count \d+ end\n", 30)
                after = int(re.findall(r"count (\d+) end\n", m.text)[-1])
                self.assertNotIn("WRONG", m.text)
                m.__exit__()
                m = Restored(path, "--verify") if i % 2 else Restored(path)
                first = int(m.expect(r"count (\d+) end\n", 60).group(1))
                self.assertTrue(before < first <= after + 1, (before, first, after))
                m.expect(r"count \d+ end\n(.*\n){20}", 60)
            self.assertNotIn("WRONG", m.text)
            m.__exit__()

    def test_many_times_from_one_file(self):
        """Each begins at the same moment; none of them changes the file; saving again keeps what was restored."""
        first, second = self.path("first"), self.path("second")
        with self.machine(WORK) as m:
            m.expect("count 20 end\n", 90)
            self.save(m, first, "--end")
            self.end(m)
        stamp = os.stat(first)
        seen = set()
        for _ in range(3):
            with Restored(first) as m:
                seen.add(m.expect(r"count (\d+) end\n", 60).group(1))
                m.expect(r"count \d+ end\n", 20)
                self.save(m, second)
                m.expect(r"count \d+ end\n", 20)
                m.at = len(m.text)
                m.expect(r"count \d+ end\n", 20)
        self.assertEqual(len(seen), 1, seen)
        self.assertEqual(os.stat(first).st_mtime_ns, stamp.st_mtime_ns)
        with Restored(second, "--verify") as m:
            after = m.expect(r"count (\d+) end\n", 60).group(1)
            self.assertGreater(int(after), int(seen.pop()))

    def test_time_stands_still(self):
        """By the guest's clock no time passes between the saved moment and the next process."""
        body = "while true; do awk '{print \"up \" $1}' /proc/uptime; sleep 0.1; done"
        path = self.path("saved")
        with self.machine(body, cpus=2) as m:
            m.expect("up .*\n", 60)
            self.save(m, path, "--end")
            self.end(m)
            before = float(re.findall(r"up ([\d.]+)\n", m.text)[-1])
        time.sleep(3)
        with Restored(path) as m:
            after = float(m.expect(r"up ([\d.]+)\n", 30).group(1))
            self.assertLess(after - before, 2)
            time.sleep(2)
            m.read_more(time.monotonic() + 1)
            later = float(re.findall(r"up ([\d.]+)\n", m.text)[-1])
            self.assertAlmostEqual(later - after, 2, delta=0.8)

    def test_paused_machine_and_shell(self):
        """A machine that is stopped is saved as well, and stays stopped; what wakes up answers."""
        path = self.path("saved")
        with self.machine() as m:
            m.expect("shell ready", 60)
            m.run("echo kept > /tmp/file")
            m.command("stop")
            self.save(m, path)
            self.assertEqual(m.command("query-status")["return"]["status"], "paused")
            m.command("cont")
            m.run("rm /tmp/file")
        with Restored(path) as m:
            self.assertEqual(m.run("cat /tmp/file"), "kept")
            self.assertEqual(m.command("system_reset"), {"return": {}})
            m.expect("shell ready", 60)
            m.send("poweroff -f\n")
            self.assertEqual(m.wait(), 0)

    def test_further_devices(self):
        path = self.path("saved")
        options = ["--device", "debug-exit", "--device", "virtio-console,chardev=none", "--device", "virtio-rng"]
        with self.machine(options=options) as m:
            m.expect("shell ready", 60)
            devices = m.run("ls /sys/bus/pci/devices | wc -l")
            self.save(m, path, "--end")
            self.end(m)
        with Restored(path) as m:
            self.assertEqual(m.run("ls /sys/bus/pci/devices | wc -l"), devices)
            m.send("poweroff -f\n")
            self.assertEqual(m.wait(), 0)


class Disks(Save):
    """Debian on a disk and a network, both busy when it is saved."""

    def debian(self):
        overlay = self.path("disk.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", self.image["disk"], "-F", "qcow2", overlay],
                       check=True)
        return Machine(kernel=self.image["kernel"], initrd=self.image["initrd"], cmdline=self.image["cmdline"],
                       memory="512M", cpus=2, disks=[(overlay, "qcow2")], net=True, vmm="ruche")

    def serve(self):
        folder = self.path("www")
        os.mkdir(folder)
        with open(os.path.join(folder, "data"), "wb") as f:
            f.write(os.urandom(1 << 20))
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
        handler.log_message = handler.func.log_message = lambda *_: None
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.handle_error = lambda *_: None  # a machine that was saved breaks off
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server.server_address[1]

    def test_disk_and_network_in_use(self):
        port, path = self.serve(), self.path("saved")
        fetch = (f"exec 3<>/dev/tcp/10.0.2.2/{port}; printf 'GET /data HTTP/1.0\\r\\n\\r\\n' >&3; "
                 "tail -c 1048576 <&3 | sha256sum")
        with self.debian() as m:
            m.login(300)
            self.good = m.run(f"({fetch})", 60)
            m.run("cat > /root/work <<'END'\n"
                  "for i in $(seq 1000000); do\n"
                  "    head -c 3000000 /dev/urandom > /root/data.$((i % 5)); sha256sum /root/data.$((i % 5)) > /root/sum.tmp\n"
                  "    sync; echo 3 > /proc/sys/vm/drop_caches; sha256sum -c --quiet /root/sum.tmp || echo bad >> /root/bad\n"
                  "    echo $i > /root/rounds\n"
                  "done\nEND\ntrue")
            m.run(f"(while true; do ({fetch}) > /root/fetched.new && mv /root/fetched.new /root/fetched; done) "
                  ">/dev/null 2>&1 & bash /root/work >/dev/null 2>&1 & true")
            rounds = int(m.run("until [ -s /root/rounds ]; do sleep 0.2; done; cat /root/rounds", 120))
            self.save(m, path, "--end")
            self.end(m)
        for _ in range(3):
            with Restored(path) as m:
                rounds = self.check_debian(m, rounds, fetch)
                self.save(m, path, "--end")
                self.end(m)
        check = subprocess.run(["qemu-img", "check", self.path("disk.qcow2")], capture_output=True, text=True, check=False)
        self.assertEqual(check.returncode, 0, check.stdout + check.stderr)
        self.stale(path)

    def check_debian(self, m, rounds, fetch):
        self.assertEqual(m.run("cat /root/bad 2>/dev/null; dmesg -l err,crit,alert,emerg"), "")
        self.assertEqual(m.run(f"({fetch})", 60), self.good)
        return int(m.run(f"until [ $(cat /root/rounds) -gt {rounds} ]; do sleep 0.2; done; cat /root/rounds", 120))

    def stale(self, path):
        """Once its disk was written to, the machine is refused, unless the disk is named anew."""
        with Restored(path) as m:
            m.run("echo more > /root/more; sync")
        line = self.refused(path)
        self.assertIn("was written to after the machine was saved", line)
        self.assertIn(self.path("disk.qcow2"), line)

    def test_disks_that_would_not_be_found(self):
        """The throw-away disk of an image is not there for a later process, nor is one that was removed."""
        disk = self.path("disk.raw")
        subprocess.run(["qemu-img", "create", "-q", "-f", "raw", disk, "16M"], check=True)
        with self.machine(disks=[(disk, "raw")]) as m:
            m.expect("shell ready", 60)
            path = self.path("saved")
            self.save(m, path)
            os.rename(disk, disk + ".moved")
            line = self.save(m, path + "2", status=125)
            self.assertIn(disk, line)
            self.assertEqual(m.run("echo alive"), "alive")
        self.assertIn(disk, self.refused(path))
        with Restored(path, "--disk", disk + ".moved,format=raw") as m:
            self.assertEqual(m.run("echo alive"), "alive")
        self.assertIn("--disk is given 2 times",
                      self.refused(path, "--disk", disk + ".moved", "--disk", self.path("initrd")))
        subprocess.run(["qemu-img", "resize", "-q", "-f", "raw", disk + ".moved", "32M"], check=True)
        self.assertIn("bytes instead of", self.refused(path, "--disk", disk + ".moved,format=raw"))


class Refusals(Save):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.whole = None  # saved once, for all of them

    def setUp(self):
        super().setUp()
        self.file = self.path("saved")
        if Refusals.whole:
            subprocess.run(["cp", "--sparse=always", Refusals.whole, self.file], check=True)
            return
        with self.machine(memory="128M") as m:
            m.expect("shell ready", 60)
            self.save(m, self.file, "--end")
            self.end(m)
        folder = tempfile.mkdtemp(prefix="ruche-test-")
        self.addClassCleanup(shutil.rmtree, folder, True)
        subprocess.run(["cp", "--sparse=always", self.file, os.path.join(folder, "saved")], check=True)
        Refusals.whole = os.path.join(folder, "saved")

    def copy(self, name):
        path = self.path(name)
        subprocess.run(["cp", "--sparse=always", self.file, path], check=True)
        return path

    def test_damaged_files(self):
        rng = random.Random(SEED)
        print("seed", SEED, flush=True)
        size = os.path.getsize(self.file)
        whole = SavedFile(self.file)
        for length in (0, 1, 4095, 4096, size // 2, size - 1, *(rng.randrange(size) for _ in range(5))):
            path = self.copy("cut")
            os.truncate(path, length)
            self.assertIn("cut", self.refused(path))
        places = [("header", rng.randrange(4096)) for _ in range(10)]
        for name, count in (("description", 5), ("state", 5), ("pages", 5), ("memory", 10)):
            _, offset, length = whole.sections[name]
            data = whole.read(name)
            for _ in range(count):
                at = rng.randrange(length)
                while name == "memory" and not data[at]:
                    at = rng.randrange(length)
                places.append((name, offset + at))
        for name, at in places:
            path = self.copy("flipped")
            with open(path, "r+b") as f:
                f.seek(at)
                byte = f.read(1)[0]
                f.seek(at)
                f.write(bytes([byte ^ 1 << rng.randrange(8)]))
            with self.subTest(name=name, at=at):
                line = self.refused(path, "--verify")
                self.assertIn(path, line)
                self.assertRegex(line, "damaged|not a saved machine")
        with Restored(self.file, "--verify") as m:
            self.assertEqual(m.run("echo alive"), "alive")

    def test_damage_found_while_it_runs(self):
        """Without --verify the machine goes on at once, and stands still when its memory turns out to be damaged."""
        whole = SavedFile(self.file)
        data = whole.read("memory")
        at = next(i for i in range(len(data) - 4096, 0, -4096) if any(data[i:i + 4096]))
        with open(self.file, "r+b") as f:
            f.seek(whole.sections["memory"][1] + at + 8)
            byte = f.read(1)[0]
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte ^ 4]))
        with Restored(self.file) as m:
            deadline = time.monotonic() + 30 * PATIENCE
            while not os.path.exists(m.control) and time.monotonic() < deadline:
                time.sleep(0.05)
            while m.command("query-status")["return"]["status"] != "internal-error" and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertEqual(m.command("query-status")["return"]["status"], "internal-error")

    def change(self, function):
        path = self.copy("changed")
        f = SavedFile(path)
        o = json.loads(f.read("description"))
        function(o)
        f.replace("description", json.dumps(o).encode())
        return self.refused(path)

    def test_what_does_not_fit(self):
        def leaf(o, function, register, bit):
            for row in o["processor"]["cpuid"]:
                if row[0] == function and row[1] == 0:
                    row[register] |= 1 << bit

        def version(o):
            o["ruche"] = "9.9"
            o["machine"]["novelty"] = True

        self.assertIn("kHz", self.change(lambda o: o["processor"].update({"tsc-hz": 1234567890})))
        self.assertIn("address bits", self.change(lambda o: o["processor"].update({"address-bits": 52})))
        self.assertIn("memory", self.change(lambda o: o["machine"].update(memory=256 << 20)))
        self.assertIn("processors", self.change(lambda o: o["machine"].update(processors=3)))
        self.assertIn("9.9", self.change(version))
        self.assertIn("not one that this Ruche reads", self.change(lambda o: o.pop("machine")))
        with open("/proc/cpuinfo", encoding="ascii") as f:
            flags = f.read().split()
        feature, register, bit = next(x for x in (("avx512f", 3, 16), ("sha_ni", 3, 29), ("gfni", 4, 8), ("amx_tile", 5, 24))
                                      if x[0] not in flags or x[0] == "avx512f")
        line = self.change(lambda o: (leaf(o, 7, register, bit),
                                      o["processor"].update(xcr0=0xe7) if feature == "avx512f" else None))
        self.assertRegex(line, "this host")

    def test_newer_format_and_unknown_device(self):
        path = self.copy("newer")
        f = SavedFile(path)
        struct.pack_into("<I", f.header, 16, 2)
        f.seal()
        self.assertIn("format 2", self.refused(path))
        path = self.copy("device")
        f = SavedFile(path)
        state = f.read("state")
        at = state.index(b"virtio-rng", state.index(b"virtio-rng0") + 11)
        f.replace("state", state[:at] + b"virtio-gpu" + state[at + 10:])
        line = self.refused(path)
        self.assertIn("virtio-rng0", line)
        self.assertIn("virtio-gpu", line)

    def test_options_that_do_not_go_with_it(self):
        for words in (["--memory", "1G"], ["--cpus", "2"], ["--kernel", "/x"], ["--cpu", "v1"], ["--net", "none"]):
            line = self.ruche("run", "--restore", self.file, *words, status=2)
            self.assertIn("--restore", line)

    def test_where_it_cannot_be_saved(self):
        with self.machine(memory="128M") as m:
            m.expect("shell ready", 60)
            with open(self.file, "rb") as f:
                before = f.read()
            for path, what in ((self.path("none/saved"), "No such file"), (self.folder, "not an ordinary file"),
                               ("/dev/full", "not an ordinary file")):
                self.assertIn(what, self.save(m, path, status=125))
            self.assertEqual(m.run("echo alive"), "alive")
            self.full_disk(m)
            with open(self.file, "rb") as f:
                self.assertEqual(f.read(), before)
            self.assertEqual(sorted(n for n in os.listdir(self.folder) if "part" in n), [])
            self.assertEqual(m.command("query-ruche-save")["return"]["status"], "failed")

    def full_disk(self, m):
        """A limit on the size of files stands for a disk that is full."""
        with open(f"/proc/{m.process.pid}/task/{m.process.pid}/children", encoding="ascii") as f:
            child = int(f.read().split()[0])
        old = resource.prlimit(child, resource.RLIMIT_FSIZE, (8 << 20, resource.RLIM_INFINITY))
        line = self.save(m, self.file, status=125)
        resource.prlimit(child, resource.RLIMIT_FSIZE, old)
        self.assertIn(self.file, line)


if __name__ == "__main__":
    unittest.main(verbosity=2)
