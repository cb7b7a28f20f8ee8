# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of live migration share: a guest that is hard to move, the two ends of a move, and a line between them that looks
at the frames (docs/migration.md) and is cut at a chosen one."""
import os
import re
import socket
import struct
import subprocess
import threading
import time

import initramfs
import tiny
from machine import PATIENCE, RUCHE, Case, Machine, image

CMDLINE = "console=ttyS0 quiet panic=-1"
KINDS = ["", "HELLO", "DESCRIPTION", "OBJECTS", "ACCEPT", "PAGES", "STATE", "READY", "GO", "RUNNING", "FAILED"]

# Writes numbered records to the disk, each durable before it is told of, while memory is written at some 50 MiB/s and
# looked at again, and checksums of what never changes are computed.
WORK = "".join(f"insmod /{name}.ko\n" for name in tiny.DRIVERS) + """
copies() {
    good=$(head -c 2600000 /dev/urandom | tee /tmp/copy0 | md5sum)
    while true; do
        for i in 0 1 2 3; do cat /tmp/copy$i > /tmp/copy$((i + 1)); sleep 0.04; done
        [ "$(md5sum < /tmp/copy4)" = "$good" ] || echo "WRONG COPY"
    done
}
copies &
n=0
while true; do
    n=$((n + 1))
    { echo $n; head -c 512 /dev/zero; } | head -c 512 | dd of=/dev/vda bs=512 seek=$n conv=notrunc,fsync 2>/dev/null
    echo "count $n end"
done
"""


def listens(path):
    """Whether somebody accepts connections there: the socket file comes first."""
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as f:
        return any(line.split()[3] == "00010000" and line.rstrip().endswith(" " + path) for line in f)


def connect(s, path):
    """To a socket that may not be listened on yet."""
    deadline = time.monotonic() + 10 * PATIENCE
    while True:
        try:
            s.connect(path)
            return
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


class Incoming(Machine):
    """Waits for a machine."""

    def __init__(self, address, *options, before=()):
        self.address, self.more, self.before = address, options, list(before)
        super().__init__(vmm="ruche")

    def _ruche(self, *_):
        return [*self.before, RUCHE, "run", "--control", self.control, "--incoming", self.address, *self.more]


class Line:
    """Between two Unix sockets. `look(name, towards)` is asked about each frame, named after its kind, on its way "there" or
    "back"; it says "pass", "cut" (before the frame), "half" (in the middle of it) or "last" (after it)."""

    def __init__(self, path, target, look=lambda name, towards: "pass"):
        self.look, self.target, self.ends, self.seen = look, target, [], []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            near = self.listener.accept()[0]
            far = socket.socket(socket.AF_UNIX)
            connect(far, self.target)
        except OSError:
            return
        self.ends = [near, far]
        for source, to, towards in ((near, far, "there"), (far, near, "back")):
            threading.Thread(target=self.carry, args=(source, to, towards), daemon=True).start()

    def exactly(self, source, n):
        data = bytearray()
        while len(data) < n:
            more = source.recv(min(1 << 20, n - len(data)))
            if not more:
                raise ConnectionError
            data += more
        return bytes(data)

    def carry(self, source, to, towards):
        try:
            while True:
                header = self.exactly(source, 24)
                kind, _, length = struct.unpack_from("<III", header, 4)
                frame = header + self.exactly(source, length)
                self.seen.append(KINDS[kind])
                what = self.look(KINDS[kind], towards)
                if what in ("pass", "last"):
                    to.sendall(frame)
                elif what == "half":
                    to.sendall(frame[:len(frame) // 2])
                if what != "pass":
                    break
        except OSError:
            pass
        self.cut()

    def cut(self):
        for end in self.ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.cut()
        for s in (*self.ends, self.listener):
            s.close()


class Moving(Case):
    def setUp(self):
        super().setUp()
        self.number = 0
        self.text = ""
        self.disk = self.path("disk.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.disk, "64M"], check=True)
        self.initrd = initramfs.make(self.path("initrd"), WORK, tiny.drivers(image()["initrd"]))

    def keep(self, machine):
        """Ends it with the test."""
        self.addCleanup(machine.__exit__)
        return machine

    def begin(self, **more):
        more.setdefault("memory", "256M")
        m = self.keep(Machine(kernel=image()["kernel"], initrd=self.initrd, cmdline=CMDLINE, vmm="ruche",
                              disks=[(self.disk, "qcow2")], **more))
        m.expect("count 5 end\n", 90)
        return m

    def address(self):
        self.number += 1
        return self.path(f"line{self.number}")

    def wait_for(self, what, condition, seconds=60):
        deadline = time.monotonic() + seconds * PATIENCE
        while not (found := condition()):
            self.assertLess(time.monotonic(), deadline, "waited for " + what)
            time.sleep(0.01)
        return found

    def receive(self, path, *options, **more):
        m = self.keep(Incoming("unix:" + path, *options, **more))
        # One that is in a network of its own is not in this one's list.
        self.wait_for("the destination", lambda: listens(path) or (more and os.path.exists(path)) or m.process.poll() is not None)
        return m

    def ended(self, source):
        """How the migration ended for the source; None when its process is gone."""
        def look():
            try:
                answer = source.command("query-migrate")["return"]
            except (OSError, ValueError):
                return source.process.poll() is not None and {"status": None}
            return answer.get("status") in ("completed", "failed", "cancelled") and answer
        return self.wait_for("the end of the migration", look)

    def state(self, machine):
        """Its run state; None when it is gone. A destination answers once it has the machine."""
        def look():
            if machine.process.poll() is not None:
                return "gone"
            try:
                return machine.command("query-status")["return"]["status"]
            except (OSError, ValueError):
                return None
        found = self.wait_for("a run state", look)
        return None if found == "gone" else found

    def move(self, source, **options):
        """One that must succeed; gives the destination, and what query-migrate said."""
        path = self.address()
        there = self.receive(path)
        self.settings(source, **options)
        self.assertEqual(source.command("migrate", uri="unix:" + path), {"return": {}})
        answer = self.ended(source)
        self.assertEqual(answer["status"], "completed", answer)
        self.assertEqual(self.state(source), "postmigrate")
        self.close(source)
        there.expect(r"count \d+ end\n", 60)
        return there, answer

    def settings(self, source, capabilities=(), **parameters):
        if parameters:
            self.assertEqual(source.command("migrate-set-parameters", **parameters), {"return": {}})
        if capabilities:
            wanted = [{"capability": c, "state": True} for c in capabilities]
            self.assertEqual(source.command("migrate-set-capabilities", capabilities=wanted), {"return": {}})

    def close(self, machine):
        """Its console's text is kept; it has said its last."""
        if machine.process.poll() is None:
            machine.command("quit")
        machine.wait()
        self.text += machine.text

    def check_text(self, text=None):
        """Over all processes the guest's counting has neither gap nor repetition, and its memory was always right."""
        text = self.text if text is None else text
        self.assertNotIn("WRONG", text)
        numbers = [int(n) for n in re.findall(r"count (\d+) end\n", text)]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
        return len(numbers)

    def check_disk(self, count):
        """The records that the guest has told of are there."""
        check = subprocess.run(["qemu-img", "check", self.disk], capture_output=True, text=True, check=False)
        self.assertEqual(check.returncode, 0, check.stdout + check.stderr)
        raw = self.path("raw")
        subprocess.run(["qemu-img", "convert", "-O", "raw", self.disk, raw], check=True)
        with open(raw, "rb") as f:
            for n in range(1, count + 1):
                f.seek(512 * n)
                self.assertEqual(f.read(512).rstrip(b"\0"), b"%d\n" % n)
