#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user can get wrong, with the real ruche-vmm: each is one line that says why, the right exit status, and nothing
left behind."""
import os
import socket
import struct
import subprocess
import time
import unittest

from harness import RUCHE, Case

LOAD = 0x100000


def multiboot(code):
    """The least kernel there is: a Multiboot 1 header with addresses, then code."""
    flags = 1 << 16
    size = 32 + len(code)
    return struct.pack("<8I", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF, LOAD, LOAD, LOAD + size, LOAD + size,
                       LOAD + 32) + code


HANG = b"\xfa\xf4\xeb\xfd"  # cli; again: hlt; jmp again


class BadInput(Case):
    def setUp(self):
        super().setUp()
        del self.env["RUCHE_VMM"]
        self.kernel = self.path("kernel")
        with open(self.kernel, "wb") as f:
            f.write(multiboot(HANG))

    def refused(self, *arguments, status, says, kernel=None):
        with self.subTest(arguments=arguments):
            _, err = self.ruche("run", "--kernel", kernel or self.kernel, *arguments, status=status)
            self.assertIn(says, self.one_line(err))
            folder = self.runtime + "/ruche"
            self.assertEqual(os.listdir(folder) if os.path.exists(folder) else [], [])

    def wait_for(self, process, condition):
        deadline = time.monotonic() + 30
        while not condition():
            self.assertIsNone(process.poll())
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)

    def file(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)
        return self.path(name)

    def test_usage(self):
        for arguments, says in ((["--cpus", "0"], "0"), (["--cpus", "33"], "33"), (["--cpus", "two"], "two"),
                                (["--memory", "0"], "0"), (["--memory", "-1"], "-1"), (["--memory", "1X"], "1X"),
                                (["--memory", "99999999999T"], "T"), (["--engine", "warp"], "warp"),
                                (["--cpu", "v9"], "v9"), (["--net", "bogus"], "bogus"),
                                (["--net", "user,forward=tcp:x"], "tcp:x"), (["--disk", "a,format=vmdk"], "vmdk"),
                                (["--device", "nosuch"], "nosuch"), (["--device", "virtio-rng,nosuch=1"], "nosuch"),
                                (["--serial", "bogus"], "bogus")):
            self.refused(*arguments, status=2, says=says)

    def test_kernels(self):
        missing = self.path("missing")
        self.refused(kernel=missing, status=125, says=missing)
        self.refused(kernel=self.folder, status=125, says=self.folder)
        for name, data in (("empty", b""), ("noise", bytes(range(256)) * 64), ("elf", b"\x7fELF" + bytes(60)),
                           ("bz", bytes(0x1FE) + b"\x55\xaa\xeb\x66HdrS" + b"\xff" * 600)):
            path = self.file(name, data)
            self.refused(kernel=path, status=125, says=path)
        self.refused("--initrd", missing, status=125, says=missing)
        self.refused("--module", missing, status=125, says=missing)

    def test_disks(self):
        missing = self.path("missing")
        self.refused("--disk", missing, status=125, says=missing)
        self.refused("--disk", self.folder, status=125, says=self.folder)
        qcow2 = self.path("d.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", qcow2, "16M"], check=True)
        with open(qcow2, "rb") as f:
            data = f.read()
        for name, damaged in (("cut", data[:70]), ("version", data[:4] + b"\0\0\0\x09" + data[8:]),
                              ("bits", data[:20] + b"\0\0\0\x3f" + data[24:])):
            path = self.file(name + ".qcow2", damaged)
            self.refused("--disk", path + ",format=qcow2", status=125, says=path)
        raw = self.file("d.raw", bytes(1 << 20))
        self.refused("--disk", raw, "--disk", raw, status=125, says=raw)
        with subprocess.Popen([RUCHE, "run", "--kernel", self.kernel, "--disk", raw], stdin=subprocess.PIPE, env=self.env,
                              stdout=subprocess.PIPE) as p:
            sockets = self.runtime + "/ruche"
            self.wait_for(p, lambda: os.path.exists(sockets) and os.listdir(sockets))
            done = subprocess.run([RUCHE, "run", "--kernel", self.kernel, "--disk", raw], capture_output=True, text=True,
                                  timeout=60, check=False, env=self.env, stdin=subprocess.DEVNULL)
            self.assertEqual(done.returncode, 125)
            self.assertIn(raw, self.one_line(done.stderr))
            p.terminate()
            self.assertEqual(p.wait(30), 143)

    def test_places(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            port = str(s.getsockname()[1])
            self.refused("--net", f"user,forward=tcp:127.0.0.1:{port}:22", status=125, says=port)
        self.refused("--serial", "file:/nonexistent/log", status=125, says="/nonexistent/log")
        self.refused("--serial", "unix:/nonexistent/s", status=125, says="/nonexistent/s")
        self.refused("--control", "/nonexistent/s", status=125, says="/nonexistent/s")
        self.refused("--control", "/tmp/" + "x" * 200, status=125, says="xxx")

    def test_one_name_for_two_machines(self):
        with subprocess.Popen([RUCHE, "run", "--kernel", self.kernel, "--name", "twin"], stdin=subprocess.PIPE,
                              env=self.env, stdout=subprocess.PIPE) as p:
            path = self.runtime + "/ruche/twin.sock"
            self.wait_for(p, lambda: os.path.exists(path))
            done = subprocess.run([RUCHE, "run", "--kernel", self.kernel, "--name", "twin"], capture_output=True, text=True,
                                  timeout=60, check=False, env=self.env, stdin=subprocess.DEVNULL)
            self.assertEqual(done.returncode, 125)
            self.assertIn("twin", self.one_line(done.stderr))
            self.assertTrue(os.path.exists(path), "the first machine's socket must survive")
            p.send_signal(2)
            self.assertEqual(p.wait(30), 130)


unittest.main(verbosity=2)
