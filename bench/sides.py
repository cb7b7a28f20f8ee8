# SPDX-License-Identifier: GPL-2.0-or-later
"""The sides of a comparison: the host itself, Ruche, and QEMU's TCG; how each runs the suite."""
import os
import stat
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests", "system"))
import initramfs  # noqa: E402

MEMORY = "1G"
# The part of the time between the suite's first and last line by which a guest's clock may be off.
CLOCK_TOLERANCE = 0.02


class Failed(Exception):
    """A side did not do what it should have; the text says which and what it said last."""


def make_initrd(program, path):
    """An initial RAM disk with the suite as its only program."""
    archive = initramfs.Archive()
    for folder in ("dev", "proc"):
        archive.add(folder, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    with open(program, "rb") as f:
        archive.add("init", stat.S_IFREG | 0o755, f.read())
    with open(path, "wb") as f:
        f.write(archive.bytes())


def parse_line(line):
    """A line of the suite: name and {median, best (ns), checksum}, or None for another line."""
    words = line.split()
    if len(words) == 2 and words[1] in ("wrong", "unsupported"):
        raise Failed(f"'{words[0]}' is {words[1]}")
    if len(words) != 4:
        return None
    try:
        return words[0], {"median": float(words[1]), "checksum": words[2], "best": float(words[3])}
    except ValueError:
        return None


class Side:
    """One way to run the suite. `name` is for tables and JSON, `version` says what exactly ran."""

    def __init__(self, name, version):
        self.name = name
        self.version = version

    def command(self, suite_arguments, cpus):
        raise NotImplementedError

    def run_suite(self, suite_arguments, cpus=1, timeout=600):
        """{item: {median, best, checksum}} of one run."""
        process = subprocess.Popen(self.command(suite_arguments, cpus), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   text=True, errors="replace")
        results, last, marks = {}, [], {}
        watchdog = threading.Timer(timeout, process.terminate)
        watchdog.start()
        try:
            for line in process.stdout:
                words = line.split()
                if len(words) == 2 and words[0] in ("begin", "end"):
                    marks[words[0]] = (time.monotonic(), float(words[1]) / 1e9)
                parsed = parse_line(line)
                if parsed:
                    results[parsed[0]] = parsed[1]
                last = (last + [line.rstrip()])[-12:]
            process.wait(30)
        except (Failed, subprocess.TimeoutExpired) as failed:
            raise Failed(f"{self.name}: {failed}") from failed
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
        if len(marks) != 2:
            raise Failed(f"{self.name} ended too early; its last lines:\n" + "\n".join(last))
        self.check_clock(marks)
        return results

    def check_clock(self, marks):
        """A guest whose clock runs slowly would look fast."""
        here = marks["end"][0] - marks["begin"][0]
        there = marks["end"][1] - marks["begin"][1]
        if abs(here - there) > CLOCK_TOLERANCE * here + 0.05:
            raise Failed(f"{self.name}: its clock counts {there:.2f} s where {here:.2f} s have passed")


class Native(Side):
    """On the host, on as many processors as the guests have."""

    def __init__(self, program):
        super().__init__("native", "")
        self.program = program

    def command(self, suite_arguments, cpus):
        processors = ",".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0))[:cpus])
        return ["taskset", "-c", processors, self.program, *suite_arguments]


class Ruche(Side):
    def __init__(self, ruche, kernel, initrd):
        version = subprocess.run([ruche, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        super().__init__("ruche", " ".join(version))
        self.ruche, self.kernel, self.initrd = ruche, kernel, initrd

    def command(self, suite_arguments, cpus):
        return [self.ruche, "run", "--engine", "bt", "--kernel", self.kernel, "--initrd", self.initrd, "--memory", MEMORY,
                "--cpus", str(cpus), "--no-reboot", "--cmdline", guest_cmdline(suite_arguments)]


def guest_cmdline(suite_arguments):
    return " ".join(["console=ttyS0 quiet panic=-1 --", *suite_arguments])
