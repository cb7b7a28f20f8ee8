#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be seen of a machine from outside while it runs: counters, the trace of exits, translated code by name."""
import json
import os
import re
import socket
import struct
import subprocess
import time
import unittest

import initramfs
from machine import RUCHE, Case, Machine, image

EXIT = re.compile(r"\d+ cpu\d+ cpl[0-3] [0-9a-f]+ "
                  r"(lookup|link|poll|op \w+|slow|fault vector \d+ error [0-9a-f]+ cr2 [0-9a-f]+|dead|moved|precise)\Z")


def ask(path, *commands):
    """The replies of the control socket."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        f = s.makefile("rw", encoding="utf-8")
        f.readline()
        replies = []
        for command in ({"execute": "qmp_capabilities"}, *commands):
            f.write(json.dumps(command) + "\n")
            f.flush()
            replies.append(json.loads(f.readline()))
        return [reply["return"] for reply in replies[1:]]


def records(path):
    """The code loads of a jitdump: (address, name, code)."""
    with open(path, "rb") as f:
        data = f.read()
    magic, version, at, machine, _, pid = struct.unpack_from("<6I", data)
    assert (magic, version, machine) == (0x4a695444, 1, 62), data[:24]
    while at < len(data):
        kind, size, _, owner, _, vma, address, length, _ = struct.unpack_from("<2IQ2I4Q", data, at)
        assert kind == 0 and owner == pid and vma == address, (kind, owner, pid)
        name, code = data[at + 56:at + size].split(b"\0", 1)
        assert len(code) == length, (len(code), length)
        yield address, name.decode(), code
        at += size


class Watching(Case):
    def machine(self, *options, **more):
        return Machine(kernel=image()["kernel"], initrd=initramfs.make(self.path("initrd"), initramfs.SHELL),
                       cmdline="console=ttyS0 quiet panic=-1 nokaslr", options=options, **more)

    def off(self, m):
        m.send("poweroff -f\n")
        self.assertEqual(m.wait(), 0)

    def test_counters(self):
        query = {"execute": "query-stats", "arguments": {"target": "vcpu"}}
        with self.machine("--engine", "bt", "--no-cache", cpus=2) as m:
            m.expect("shell ready", 60)
            first, schemas = ask(m.control, query, {"execute": "query-stats-schemas"})
            m.run("i=0; while [ $i -lt 2000 ]; do i=$((i+1)); /bin/true; done", 60)
            last, = ask(m.control, query)
            self.off(m)
        self.assertEqual([cpu["qom-path"] for cpu in first], [f"/machine/unattached/device[{i}]" for i in (0, 1)])
        names = [stat["name"] for stat in schemas[0]["stats"]]
        for before, after in zip(first, last):
            self.assertEqual([stat["name"] for stat in before["stats"]], names)
            before, after = ({s["name"]: s["value"] for s in cpu["stats"]} for cpu in (before, after))
            self.assertFalse([name for name in names if after[name] < before[name]])
            for name in ("translations", "halt-cycles", "translate-cycles", "exits-op", "tlb-misses", "interrupts"):
                self.assertGreater(after[name], 0, name)
        totals = [sum(s["value"] for cpu in when for s in cpu["stats"] if s["name"] == "user-entries")
                  for when in (first, last)]
        self.assertGreater(totals[1], totals[0] + 2000)

    def test_second_boot_translates_little(self):
        """What the first machine has translated is kept, but not when that is not wanted."""
        folder = self.path("kept")

        def boot(*options):
            with self.machine(*options) as m:
                m.expect("shell ready", 60)
                cpu, = ask(m.control, {"execute": "query-stats", "arguments": {"target": "vcpu"}})[0]
                self.off(m)
            counters = {s["name"]: s["value"] for s in cpu["stats"]}
            return counters["translations"], counters["translations-kept"]

        first, second, none = boot("--engine", "bt,cache=" + folder), boot("--engine", "bt,cache=" + folder), boot("--no-cache")
        self.assertEqual(len(os.listdir(folder)), 1)
        self.assertGreater(first[0], 10 * first[1])
        self.assertGreater(second[1], 10 * second[0])
        self.assertEqual(none[1], 0)
        self.assertGreater(none[0], first[0] / 2)

    def test_idle_machine_gives_its_code_cache_back(self):
        def held(pid):
            with open(f"/proc/{pid}/smaps", encoding="ascii") as f:
                mappings = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", f.read())
            return sum(int(re.search(r"Pss: +(\d+)", m).group(1)) for m in mappings if "ruche-bt-code" in m)

        query = {"execute": "query-stats", "arguments": {"target": "vcpu"}}
        with self.machine("--engine", "bt", cpus=2) as m:
            m.expect("shell ready", 60)
            thread = ask(m.control, {"execute": "query-cpus-fast"})[0][0]["thread-id"]
            with open(f"/proc/{thread}/status", encoding="ascii") as f:
                vmm = int(re.search(r"Tgid:\s+(\d+)", f.read()).group(1))
            deadline = time.monotonic() + 90
            while held(vmm) > 2048 and time.monotonic() < deadline:
                time.sleep(0.5)
            self.assertLessEqual(held(vmm), 2048, "KiB, after it has idled")
            stats, = ask(m.control, query)
            killed, = (s["value"] for s in stats[0]["stats"] if s["name"] == "machine-blocks-killed")
            self.assertGreater(killed, 10000)
            self.assertEqual(m.run("seq 1 1000 | md5sum", 60), "53d025127ae99ab79e8502aae2d9bea6  -")
            self.off(m)

    def test_trace(self):
        trace = self.path("trace")
        with self.machine("--engine", "bt", "--trace", trace) as m:
            m.expect("shell ready", 120)
            self.off(m)
        with open(trace, encoding="ascii") as f:
            lines = f.read().splitlines()
        self.assertEqual([line for line in lines if not EXIT.match(line)], [])
        self.assertTrue(any(line.endswith(" op cpuid") for line in lines))
        self.assertTrue(any(" cpl3 " in line and " fault vector 14 " in line for line in lines))
        times = [int(line.split()[0]) for line in lines]
        self.assertEqual(times, sorted(times))

    def test_jitdump(self):
        folder = self.path("jit")
        os.mkdir(folder)
        with open(os.path.join(folder, "kallsyms"), "w", encoding="ascii") as f:
            f.write("ffffffff81000000 T the_kernel\nffffffffc0000000 T its_modules\n")
        with self.machine("--engine", f"bt,jitdump={folder}") as m:
            m.expect("shell ready", 60)
            self.off(m)
        dump, = (name for name in os.listdir(folder) if name != "kallsyms")
        self.assertRegex(dump, r"\Ajit-\d+\.dump\Z")
        blocks = list(records(os.path.join(folder, dump)))
        self.assertEqual(len(blocks), len(set(address for address, _, _ in blocks)))
        names = set(name for _, name, _ in blocks)
        self.assertIn("guest:the_kernel", names)
        self.assertTrue(any(name.startswith("guest:user:0x") for name in names))
        self.assertTrue(all(code for _, _, code in blocks))

    def test_full_disk_is_told(self):
        p = subprocess.run([RUCHE, "run", "--engine", "bt", "--kernel", image()["kernel"], "--initrd",
                            initramfs.make(self.path("initrd"), "poweroff -f"), "--cmdline", "console=ttyS0 quiet",
                            "--trace", "/dev/full"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn("--trace '/dev/full': not all of it could be written", p.stderr)

    def test_refused(self):
        for options, why in ((("--engine", "bt,jitdump=/nonexistent"), "cannot write the jitdump '/nonexistent/jit-"),
                             (("--trace", "/nonexistent/trace"), "--trace '/nonexistent/trace': cannot write it")):
            p = subprocess.run([RUCHE, "run", "--kernel", image()["kernel"], *options], stdin=subprocess.DEVNULL,
                               capture_output=True, text=True, check=False)
            self.assertEqual((p.returncode, p.stdout), (125, ""))
            self.assertIn(why, p.stderr)


if __name__ == "__main__":
    unittest.main()
