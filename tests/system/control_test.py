#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket of a machine that runs, as its clients see it; machines in the background; locks of disks."""
import json
import os
import re
import signal
import socket
import subprocess
import time
import unittest

import initramfs
from machine import PATIENCE, RUCHE, Case, Machine, image

CMDLINE = "console=ttyS0 quiet panic=-1"
# Counts, so that one sees from outside whether the guest goes on.
COUNT = "n=0; while true; do echo count $n; n=$((n + 1)); sleep 0.1; done"


class Client:
    """One connection; keeps the events that come between answers."""

    def __init__(self, path, negotiate=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20 * PATIENCE)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self.file = self.socket.makefile("rw", encoding="utf-8")
        self.events = []
        self.greeting = self.read()
        if negotiate:
            assert self.call("qmp_capabilities") == {"return": {}}

    def read(self):
        line = self.file.readline()
        return json.loads(line) if line else None

    def send(self, text):
        self.file.write(text)
        self.file.flush()

    def call(self, name, **arguments):
        request = {"execute": name, "id": [name, len(self.events)]}
        if arguments:
            request["arguments"] = arguments
        self.send(json.dumps(request) + "\n")
        while True:
            answer = self.read()
            if answer is None:
                raise EOFError(f"no answer to {name}")
            if "event" not in answer:
                assert answer.pop("id") == request["id"], answer
                return answer
            self.events.append(answer)

    def wait_event(self, name):
        while True:
            for i, event in enumerate(self.events):
                if event["event"] == name:
                    return self.events.pop(i)
            event = self.read()
            if event is None:
                raise EOFError(f"no event {name}")
            self.events.append(event)

    def close(self):
        self.file.close()
        self.socket.close()


class Control(Case):
    @classmethod
    def setUpClass(cls):
        cls.kernel = image()["kernel"]

    def machine(self, body=COUNT, **more):
        initrd = initramfs.make(self.path("initrd"), body)
        return Machine(kernel=self.kernel, initrd=initrd, cmdline=CMDLINE, vmm="ruche", **more)

    def client(self, machine, **more):
        client = Client(machine.control, **more)
        self.addCleanup(client.close)
        return client

    def disk(self, name, kind="qcow2"):
        path = self.path(name)
        subprocess.run(["qemu-img", "create", "-q", "-f", kind, path, "64M"], check=True)
        return path

    def test_greeting_and_negotiation(self):
        with self.machine() as m:
            m.expect("count 3", 60)
            c = self.client(m, negotiate=False)
            self.assertIn("version", c.greeting["QMP"])
            self.assertIn("capabilities", c.greeting["QMP"])
            self.assertEqual(c.call("query-status")["error"]["class"], "CommandNotFound")
            self.assertEqual(c.call("qmp_capabilities"), {"return": {}})
            self.assertIn("error", c.call("qmp_capabilities"))
            self.assertEqual(c.call("no-such")["error"]["class"], "CommandNotFound")
            names = {command["name"] for command in c.call("query-commands")["return"]}
            self.assertLessEqual({"query-version", "query-status", "query-cpus-fast", "query-block", "query-chardev", "stop",
                                  "cont", "system_reset", "system_powerdown", "quit"}, names)
            self.assertIn("qemu", c.call("query-version")["return"])
            self.assertEqual(c.call("query-status")["return"],
                             {"status": "running", "running": True, "singlestep": False})

    def test_what_the_machine_has(self):
        disks = [(self.disk("a.qcow2"), "qcow2"), (self.disk("b.raw", "raw"), "raw")]
        with self.machine(cpus=3, disks=disks) as m:
            m.expect("count 3", 60)
            c = self.client(m)
            cpus = c.call("query-cpus-fast")["return"]
            self.assertEqual([cpu["cpu-index"] for cpu in cpus], [0, 1, 2])
            for cpu in cpus:
                with open(f"/proc/{cpu['thread-id']}/comm", encoding="ascii") as f:
                    self.assertIn("vcpu", f.read())
            blocks = c.call("query-block")["return"]
            self.assertEqual([(b["inserted"]["file"], b["inserted"]["drv"]) for b in blocks], disks)
            for b in blocks:
                self.assertEqual(b["inserted"]["image"]["virtual-size"], 64 << 20)
                self.assertFalse(b["inserted"]["ro"])
            self.assertEqual(len({b["device"] for b in blocks}), 2)
            self.assertTrue(c.call("query-chardev")["return"])

    def test_stop_and_go_on(self):
        """While it is stopped the guest neither runs nor, by its own clock, has time pass."""
        with self.machine("awk '{print \"up \" $1}' /proc/uptime; " + COUNT.replace(
                "echo count $n", "awk '{print \"up \" $1}' /proc/uptime")) as m:
            m.expect("up .*\n", 60)
            c, other = self.client(m), self.client(m)
            for _ in range(3):
                self.assertEqual(c.call("stop"), {"return": {}})
                self.assertEqual(c.call("stop"), {"return": {}})
                self.assertIn("timestamp", other.wait_event("STOP"))
                self.assertEqual(other.call("query-status")["return"]["status"], "paused")
                self.assertFalse(other.call("query-status")["return"]["running"])
                self.quiet(m)
                before = float(re.findall(r"up ([\d.]+)\n", m.text)[-1])
                time.sleep(1.5)
                self.quiet(m)
                self.assertEqual(c.call("cont"), {"return": {}})
                self.assertEqual(c.call("cont"), {"return": {}})
                other.wait_event("RESUME")
                after = float(m.expect(r"up ([\d.]+)\n", 10).group(1))
                self.assertLess(after - before, 2)

    def quiet(self, m):
        """Takes what is still under way, and fails if the guest goes on."""
        for seconds in (0.5, 0.5):
            size = len(m.text)
            m.read_more(time.monotonic() + seconds)
        self.assertEqual(len(m.text), size)
        m.at = size

    def test_reset_power_button_and_end(self):
        with self.machine("sleep 1000") as m:
            m.expect("init runs", 60)
            c, other = self.client(m), self.client(m)
            for _ in range(3):
                self.assertEqual(c.call("system_reset"), {"return": {}})
                other.wait_event("RESET")
                m.expect("init runs", 60)
            self.assertEqual(c.call("system_powerdown"), {"return": {}})
            other.wait_event("POWERDOWN")
            c.call("stop")
            self.assertEqual(c.call("system_reset"), {"return": {}})
            c.call("cont")
            m.expect("init runs", 60)
            self.assertEqual(c.call("quit"), {"return": {}})
            self.assertFalse(other.wait_event("SHUTDOWN")["data"]["guest"])
            self.assertIsNone(other.read())
            self.assertEqual(m.wait(), 130)  # not the guest's own end

    def test_guest_ends_itself(self):
        with self.machine("sleep 2; poweroff -f") as m:
            m.expect("init runs", 60)
            c = self.client(m)
            self.assertTrue(c.wait_event("SHUTDOWN")["data"]["guest"])
            self.assertEqual(m.wait(), 0)

    def test_many_clients_and_bad_ones(self):
        """A client that breaks off, talks nonsense or does not read harms only itself."""
        with self.machine() as m:
            m.expect("count 1", 60)
            clients = [self.client(m) for _ in range(20)]
            deaf = socket.socket(socket.AF_UNIX)
            self.addCleanup(deaf.close)
            deaf.connect(m.control)
            deaf.setblocking(False)
            try:
                while True:
                    deaf.send(b'{"execute": "query-commands"}\n' * 100)
            except BlockingIOError:
                pass
            for nonsense in (b"\0\xff\xfe garbage\n", b"{" * 100000 + b"\n", b'{"execute": 7}\n', b"[1, 2]\n", b'"x"\n',
                             b'{"execute": "stop", "arguments": []}\n', b'{"execute": "st', b"x" * (1 << 22), b"\n" * 1000):
                bad = socket.socket(socket.AF_UNIX)
                bad.settimeout(20 * PATIENCE)
                bad.connect(m.control)
                try:
                    bad.sendall(nonsense)
                except (BrokenPipeError, ConnectionResetError):
                    pass
                bad.close()
            for c in clients:
                self.assertEqual(c.call("query-status")["return"]["status"], "running")
            clients[0].call("stop")
            for c in clients[1:]:
                c.wait_event("STOP")
            clients[0].call("cont")
            m.at = len(m.text)
            m.expect("count", 20)

    def test_commands_in_one_piece_and_byte_by_byte(self):
        with self.machine() as m:
            m.expect("count 1", 60)
            c = self.client(m)
            c.send('{"execute":"query-status","id":1} {"execute":"query-version","id":2}\n{"execute":"query-status","id":3}')
            self.assertEqual([c.read()["id"] for _ in range(3)], [1, 2, 3])
            for byte in '{"execute": "query-status", "id": "\\u00e9"}\n':
                c.send(byte)
            self.assertEqual(c.read()["id"], "\u00e9")

    def test_locks(self):
        """A disk is one machine's for writing, or any number's for reading."""
        for kind in ("qcow2", "raw"):
            disk = self.disk("locked." + kind, kind)
            with self.subTest(kind=kind), self.machine(disks=[(disk, kind)]) as m:
                m.expect("count 1", 60)
                for suffix in ("", ",readonly"):
                    self.refused(disk, kind, suffix)
                m.expect("count", 20)
            with self.machine(disks=[(disk, kind)]) as m:
                m.expect("count 1", 60)
                m.kill(signal.SIGKILL)
                m.wait()
            with self.machine(disks=[(disk, kind + ",readonly")]) as m:
                m.expect("count 1", 60)
                self.refused(disk, kind, "")
                with self.machine(disks=[(disk, kind + ",readonly")]) as second:
                    second.expect("count 1", 60)

    def refused(self, disk, kind, suffix):
        command = [RUCHE, "run", "--kernel", self.kernel, "--disk", f"{disk},format={kind}{suffix}"]
        p = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30 * PATIENCE,
                           check=False)
        self.assertEqual(p.returncode, 125)
        self.assertEqual(len(p.stderr.splitlines()), 1, p.stderr)
        self.assertIn(disk, p.stderr)


class Detached(Case):
    def start(self, *options, body=initramfs.SHELL):
        initrd = initramfs.make(self.path("initrd"), body)
        p = subprocess.run([RUCHE, "run", "--detach", "--control", self.path("control.sock"), "--kernel", image()["kernel"],
                            "--initrd", initrd, "--cmdline", CMDLINE, *options], stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, timeout=60 * PATIENCE, check=False)
        if p.returncode == 0:
            self.addCleanup(self.end)
        return p.returncode, p.stdout, p.stderr

    def end(self):
        """Ends a machine that a failed test left behind."""
        try:
            client = Client(self.path("control.sock"))
        except OSError:
            return
        client.call("quit")
        client.close()

    def process(self, client):
        """The machine's process: that of its first processor's thread."""
        thread = client.call("query-cpus-fast")["return"][0]["thread-id"]
        with open(f"/proc/{thread}/status", encoding="ascii") as f:
            return int(re.search(r"Tgid:\s+(\d+)", f.read()).group(1))

    def running(self, pid):
        """One that nobody waits for may stay behind as a zombie."""
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as f:
                return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
        except (FileNotFoundError, ProcessLookupError):  # before it is opened, or read
            return False

    def wait_gone(self, pid):
        deadline = time.monotonic() + 20 * PATIENCE
        while self.running(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse(self.running(pid))

    def receive(self, s, want):
        """Takes what the serial line says, up to some text."""
        text = b""
        while want not in text:
            more = s.recv(4096)
            self.assertTrue(more, f"the serial line ended after {text}")
            text += more

    def test_life_of_a_machine_in_the_background(self):
        status, out, err = self.start("--name", "bee")
        self.assertEqual((status, err), (0, ""))
        control, serial = self.path("control.sock"), self.path("control.serial")
        self.assertEqual(out, f"name     bee\ncontrol  {control}\nserial   unix:{serial}\n")
        for path in (control, serial):
            self.assertEqual(os.stat(path).st_mode & 0o077, 0)
        c = Client(control)
        self.addCleanup(c.close)
        pid = self.process(c)
        for turn in range(2):  # the console can be left and come back to
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(60 * PATIENCE)
                s.connect(serial)
                if turn == 0:
                    self.receive(s, b"shell ready")
                s.sendall(f"echo turn''{turn}\n".encode())
                self.receive(s, f"turn{turn}".encode())
        # A second of the same sockets is refused, and leaves the first in peace.
        status, out, err = self.start("--name", "bee")
        self.assertEqual((status, out), (125, ""))
        self.assertEqual(len(err.splitlines()), 1, err)
        self.assertEqual(c.call("query-status")["return"]["status"], "running")
        self.assertEqual(c.call("quit"), {"return": {}})
        self.wait_gone(pid)
        self.assertFalse(os.path.exists(control))
        self.assertFalse(os.path.exists(serial))

    def test_sockets_of_a_killed_machine_are_taken_over(self):
        for _ in range(2):
            status, _, err = self.start()
            self.assertEqual((status, err), (0, ""))
            c = Client(self.path("control.sock"))
            pid = self.process(c)
            c.close()
            os.kill(pid, signal.SIGKILL)
            self.wait_gone(pid)

    def test_failure_is_told(self):
        status, out, err = self.start("--disk", self.path("nothing"))
        self.assertEqual((status, out), (125, ""))
        self.assertIn("nothing", err)
        self.assertFalse(os.path.exists(self.path("control.sock")))


unittest.main(verbosity=2)
