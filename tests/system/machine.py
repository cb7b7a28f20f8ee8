# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine under test and its console: `ruche run`, or QEMU, which shows that a test itself is right.

Environment: RUCHE is the program `ruche`, ENGINE what its --engine gets; VMM=qemu takes QEMU instead; VERBOSE=1 copies the
console to stderr.
"""
import hashlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
RUCHE = os.environ.get("RUCHE", os.path.join(HERE, "../../build/src/cli/ruche"))
VMM = os.environ.get("VMM", "ruche")
ENGINE = os.environ.get("ENGINE")
VERBOSE = os.environ.get("VERBOSE")
# The sanitizer build and loaded machines are slower, and nothing here is a measurement.
PATIENCE = float(os.environ.get("PATIENCE", "1"))


class Failed(AssertionError):
    """The guest did not do what the test wanted; carries the end of the console's text."""


def image(name="debian"):
    """The image as `ruche image inspect --json` describes it."""
    out = subprocess.run([RUCHE, "image", "inspect", name, "--json"], check=True, stdout=subprocess.PIPE).stdout
    return json.loads(out)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


# What a kernel's log says when something is wrong, with the machine or in the kernel.
TROUBLE = re.compile(r"WARNING|BUG|Oops|[Pp]anic|[Cc]all [Tt]race|segfault|general protection|trap |traps:|invalid opcode|"
                     r"stall|lockup|hung task|blocked for more|unstable|I/O error|timed? ?out|nobody cared|[Ff]ailed|"
                     r"[Cc]orrupt|RIP:|NMI|MCE|[Uu]nhandled|inconsistent|skew")
# What it says when the host let a processor wait in the middle of a timer interrupt, or delivered some late while it
# measured: loaded hosts do.
LATE = re.compile(r"hrtimer: interrupt took \d+ ns|APIC calibration not consistent with PM-Timer")


def trouble(log):
    """The lines of a kernel's log that tell of trouble."""
    return [line for line in log.splitlines() if TROUBLE.search(line)]


def warnings(log):
    """What `dmesg -r` shows of level warning and worse, or tells of trouble at whatever level, without the times."""
    lines = re.findall(r"^<(\d+)>\[ *[\d.]+\](?:\[.*?\])? (.*)$", log, re.MULTILINE)
    return [text for level, text in lines if (int(level) & 7 <= 4 or trouble(text)) and not LATE.match(text)]


class Machine:
    """One run. Everything is given by keyword; `disks` are (path, format) pairs, `forward` is {host port: guest port}."""

    def __init__(self, kernel=None, initrd=None, cmdline=None, memory="512M", cpus=1, disks=(), image=None, forward=None,
                 net=False, options=(), qemu_options=(), vmm=VMM):
        self.folder = tempfile.mkdtemp(prefix="ruche-test-")
        self.control = os.path.join(self.folder, "control")
        self.text = ""
        self.at = 0
        self.status = None
        build = self._qemu if vmm == "qemu" else self._ruche
        command = build(kernel, initrd, cmdline, memory, cpus, list(disks), image, forward or {}, net)
        command += list(qemu_options if vmm == "qemu" else options)
        self.vmm = vmm
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _ruche(self, kernel, initrd, cmdline, memory, cpus, disks, image_name, forward, net):
        command = [RUCHE, "run", *(["--engine", ENGINE] if ENGINE else []), "--memory", memory, "--cpus", str(cpus), "--control", self.control]
        for option, value in (("kernel", kernel), ("initrd", initrd), ("cmdline", cmdline)):
            if value is not None:
                command += ["--" + option, value]
        for path, kind in disks:
            command += ["--disk", f"{path},format={kind}"]
        if net or forward:
            rules = "".join(f",forward=tcp:127.0.0.1:{host}:{guest}" for host, guest in forward.items())
            command += ["--net", "user" + rules]
        if image_name:
            command.append(image_name)
        return command

    def _qemu(self, kernel, initrd, cmdline, memory, cpus, disks, image_name, forward, net):
        command = ["qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-cpu", "max", "-m", memory, "-smp",
                   str(cpus), "-nographic", "-nodefaults", "-serial", "stdio", "-device", "pvpanic", "-device",
                   "isa-debug-exit,iobase=0x501", "-qmp", f"unix:{self.control},server=on,wait=off"]
        if image_name:
            base = image(image_name)
            kernel, initrd = kernel or base["kernel"], initrd or base["initrd"]
            cmdline = cmdline or base["cmdline"]
            overlay = os.path.join(self.folder, "overlay.qcow2")
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base["disk"], "-F", "qcow2", overlay],
                           check=True)
            disks.insert(0, (overlay, "qcow2"))
            net = True
        for option, value in (("-kernel", kernel), ("-initrd", initrd), ("-append", cmdline)):
            if value is not None:
                command += [option, value]
        for i, (path, kind) in enumerate(disks):
            command += ["-drive", f"file={path},format={kind},if=none,id=d{i}", "-device",
                        f"virtio-blk-pci,drive=d{i},disable-legacy=on"]
        if net or forward:
            rules = "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{guest}" for host, guest in forward.items())
            command += ["-netdev", "user,id=n" + rules, "-device", "virtio-net-pci,netdev=n,disable-legacy=on"]
        return command

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            # QEMU would say on stderr that it was told to end.
            self.process.send_signal(signal.SIGKILL if self.vmm == "qemu" else signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _fail(self, why):
        tail = self.text[-3000:]
        raise Failed(f"{why}; the console ended with:\n{tail}")

    def kill(self, number):
        """Sends a signal to the process that is the machine."""
        if self.vmm == "qemu":
            self.process.send_signal(number)
            return
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as f:
            for child in f.read().split():
                os.kill(int(child), number)

    def read_more(self, deadline):
        """More of the console's text; False at its end."""
        ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            return True
        data = os.read(self.process.stdout.fileno(), 65536)
        if VERBOSE:
            sys.stderr.write(data.decode(errors="replace"))
            sys.stderr.flush()
        self.text += data.decode(errors="replace").replace("\r", "")
        return bool(data)

    def expect(self, pattern, timeout=60):
        """Waits for a regular expression in what the console has said since the last match; gives the match."""
        deadline = time.monotonic() + timeout * PATIENCE
        compiled = re.compile(pattern)
        while True:
            match = compiled.search(self.text, self.at)
            if match:
                self.at = match.end()
                return match
            if time.monotonic() >= deadline:
                self._fail(f"no '{pattern}' within {timeout * PATIENCE:.0f} s")
            if not self.read_more(deadline):
                self._fail(f"the machine ended (exit status {self.process.wait(20)}) before '{pattern}'")

    def send(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def run(self, command, timeout=60, check=True):
        """Runs a command in the guest's shell; gives its output. The marks are split so that no echo matches them."""
        mark = f"{time.monotonic_ns():x}"
        self.send(f"echo begin''{mark}; {command}; status=$?; echo; echo end''{mark} $status\n")
        match = self.expect(rf"begin{mark}\n((?:.|\n)*)\nend{mark} (\d+)\n", timeout)
        output = re.sub(r"\x1b\[\??[0-9;]*[a-zA-Z]", "", match.group(1)).strip()
        if check and match.group(2) != "0":
            self._fail(f"'{command}' gave {match.group(2)}")
        return output

    def wait(self, timeout=60):
        """Waits for the machine's end; gives the exit status."""
        deadline = time.monotonic() + timeout * PATIENCE
        while time.monotonic() < deadline:
            if not self.read_more(deadline):
                break
        try:
            return self.process.wait(max(1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return self._fail("the machine did not end")

    def command(self, name, **arguments):
        """One command on the control socket; gives its answer."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20 * PATIENCE)
            s.connect(self.control)
            f = s.makefile("rw")
            f.readline()
            answer = {}
            for request in ({"execute": "qmp_capabilities"}, {"execute": name, "arguments": arguments}):
                f.write(json.dumps(request) + "\n")
                f.flush()
                answer = json.loads(f.readline())
                while "event" in answer:
                    answer = json.loads(f.readline())
            return answer

    def login(self, timeout=180):
        """Waits for the root shell of the image `debian` and makes it quiet."""
        self.expect(r"login: root \(automatic login\)", timeout)
        self.expect(r"root@debian:~# ", timeout)
        self.run("bind 'set enable-bracketed-paste off' 2>/dev/null; PS1=; stty -echo; dmesg -n 1")


class Restored(Machine):
    """A machine that goes on from a file."""

    def __init__(self, path, *options, vmm="ruche"):
        self.saved, self.more = path, options
        super().__init__(vmm=vmm)

    def _ruche(self, *_):
        return [RUCHE, "run", "--control", self.control, "--restore", self.saved, *self.more]


class Console:
    """`ruche console` on pipes."""

    def __init__(self, name, env):
        self.process = subprocess.Popen([RUCHE, "console", name], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.text = ""
        self.at = 0

    def expect(self, pattern, timeout=60):
        """Waits for a regular expression in what came since the last match; gives the match."""
        deadline = time.monotonic() + timeout * PATIENCE
        while not (match := re.compile(pattern).search(self.text, self.at)):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not data:
                raise Failed(f"no '{pattern}'; the console ended with:\n{self.text[-3000:]}")
            self.text += data.decode(errors="replace").replace("\r", "")
        self.at = match.end()
        return match

    def run(self, command):
        """Runs a command in the guest's shell; gives its output."""
        mark = f"{time.monotonic_ns():x}"
        self.process.stdin.write(f"echo begin''{mark}; {command}; echo; echo end''{mark}\n".encode())
        self.process.stdin.flush()
        return self.expect(rf"begin{mark}\n((?:.|\n)*)\nend{mark}\n").group(1).strip()

    def close(self):
        self.process.terminate()
        status = self.process.wait(20)
        self.process.stdin.close()
        self.process.stdout.close()
        return status


class Case(unittest.TestCase):
    """With a folder of its own for each test."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="ruche-test-")
        self.addCleanup(shutil.rmtree, self.folder, True)

    def path(self, name):
        return os.path.join(self.folder, name)
