# SPDX-License-Identifier: GPL-2.0-or-later
"""The sides of a comparison: the host itself, Ruche, and QEMU's TCG. Each says by which command it runs a guest."""
import dataclasses
import os
import re
import signal
import subprocess
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
# By how much a guest's clock may differ from the host's: a part of the time, and the seconds that a line takes to get out.
CLOCK_TOLERANCE = (0.02, 0.3)


class Failed(Exception):
    """A side did not do what it should have; the text says which and what it said last."""


@dataclasses.dataclass
class Guest:
    """What a machine is made of. `disks` are (path, format) pairs; it may write to them."""
    kernel: str
    initrd: str
    cmdline: str
    memory: str = "1G"
    cpus: int = 1
    disks: tuple = ()
    net: bool = False


def parse_line(line):
    """A line "NAME MEDIAN CHECKSUM BEST": the name and {median, checksum, best}, in ns; None for another line."""
    words = line.split()
    if len(words) == 2 and words[1] in ("wrong", "unsupported"):
        raise Failed(f"'{words[0]}' is {words[1]}")
    if len(words) != 4:
        return None
    try:
        return words[0], {"median": float(words[1]), "checksum": words[2], "best": float(words[3])}
    except ValueError:
        return None


class Marks:
    """The lines "begin T" and "end T" with which a run says what its clock shows, in ns."""

    def __init__(self):
        self.seen = {}

    def read(self, line):
        match = re.match(r"(begin|end) (\d+)\s*$", line)
        if match:
            self.seen[match.group(1)] = (time.monotonic(), int(match.group(2)) / 1e9)

    def check(self):
        """A guest whose clock runs slowly would look fast."""
        if len(self.seen) != 2:
            raise Failed("it ended too early")
        here, there = (self.seen["end"][i] - self.seen["begin"][i] for i in (0, 1))
        if abs(here - there) > CLOCK_TOLERANCE[0] * here + CLOCK_TOLERANCE[1]:
            raise Failed(f"its clock counts {there:.2f} s where {here:.2f} s have passed")


def run_lines(name, command, timeout):
    """Runs a command that prints results; gives {item: figures}."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace")
    watchdog = threading.Timer(timeout, process.terminate)
    watchdog.start()
    results, last, marks = {}, [], Marks()
    try:
        for line in process.stdout:
            last = (last + [line.rstrip()])[-12:]
            marks.read(line)
            parsed = parse_line(line)
            if parsed:
                results[parsed[0]] = parsed[1]
        process.wait(30)
        marks.check()
    except (Failed, subprocess.TimeoutExpired) as failed:
        raise Failed(f"{name}: {failed}; its last lines:\n" + "\n".join(last)) from failed
    finally:
        watchdog.cancel()
        stop(process)
    return results


def stop(process, number=signal.SIGTERM):
    """Ends a machine or program that still runs, so that nothing of it is left."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout:
        process.stdout.close()


class Native:
    """The host, on as many processors as the guests have."""
    name = "native"
    version = ""

    def pin(self, command, cpus):
        processors = ",".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0))[:cpus])
        return ["taskset", "-c", processors, *command]


class Ruche:
    name = "ruche"
    stop_signal = signal.SIGTERM  # it has a process of its own to end

    def __init__(self, ruche):
        self.program = ruche
        out = subprocess.run([ruche, "version"], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.version = out.splitlines()[0]

    def command(self, guest):
        command = [self.program, "run", "--engine", os.environ.get("BENCH_ENGINE","bt"), "--no-reboot", "--kernel", guest.kernel, "--initrd", guest.initrd,
                   "--memory", guest.memory, "--cpus", str(guest.cpus), "--cmdline", guest.cmdline]
        for path, kind in guest.disks:
            command += ["--disk", f"{path},format={kind}"]
        return command + (["--net", "user"] if guest.net else [])


class Qemu:
    """QEMU's TCG with what makes it fast: a thread for each processor, room for all translations, paravirtual devices, no
    device that is not used, and no fifth level of page tables."""
    stop_signal = signal.SIGKILL  # it would say that it was told to end

    def __init__(self, root=None):
        prefix = []
        self.program = "qemu-system-x86_64"
        self.data = []
        if root:
            prefix = ["env", f"LD_LIBRARY_PATH={root}/usr/lib/x86_64-linux-gnu:{root}/usr/lib"]
            self.program = os.path.join(root, "usr/bin/qemu-system-x86_64")
            self.data = ["-L", f"{root}/usr/share/qemu", "-L", f"{root}/usr/share/seabios"]
        self.prefix = prefix
        out = subprocess.run([*prefix, self.program, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.version = out.splitlines()[0]
        number = re.search(r"version (\d+\.\d+)", self.version)
        self.name = "qemu-" + number.group(1)

    def command(self, guest):
        command = [*self.prefix, self.program, *self.data, "-accel", "tcg,thread=multi,tb-size=1024", "-machine", "q35",
                   "-cpu", "max,la57=off", "-m", guest.memory, "-smp", str(guest.cpus), "-nodefaults", "-display", "none",
                   "-serial", "stdio", "-no-reboot", "-kernel", guest.kernel, "-initrd", guest.initrd, "-append",
                   guest.cmdline]
        for i, (path, kind) in enumerate(guest.disks):
            command += ["-drive", f"file={path},format={kind},if=none,id=d{i}", "-device",
                        f"virtio-blk-pci,drive=d{i},disable-legacy=on"]
        if guest.net:
            command += ["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,disable-legacy=on"]
        return command


def overlay(base, path):
    """A disk that starts as a copy of `base`, for a guest's `disks`."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path], check=True)
    return path, "qcow2"


def find(names, ruche, cache):
    """The sides by their names; without names all that can be had. "qemu" is whatever QEMU there is."""
    def wanted(name):
        return not names or name in names or name.split("-")[0] in names

    sides = []
    if wanted("native"):
        sides.append(Native())
    if wanted("ruche"):
        sides.append(Ruche(ruche))
    if not names or any(name.startswith("qemu") for name in names):
        found = [Qemu()]
        fetched = subprocess.run([os.path.join(HERE, "newer-qemu"), cache], stdout=subprocess.PIPE, check=False)
        if fetched.returncode == 0:
            found.append(Qemu(os.path.join(cache, "qemu")))
        sides += [qemu for qemu in found if wanted(qemu.name)]
    if not sides:
        raise Failed(f"there is no side {', '.join(names)}")
    return sides
