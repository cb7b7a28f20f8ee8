# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of the benchmark that run the suite: its items on one processor, on two, and in several threads at once."""
import os
import stat
import subprocess
import sys

import sides

sys.path.insert(0, os.path.join(sides.HERE, "..", "tests", "system"))
import initramfs  # noqa: E402

# Of the items for one processor, those that two change.
TWO_CPU_ITEMS = ("pipe", "futex")
# What is run in several threads at once: what computes, and fits a core's caches.
SCALING_ITEMS = ("sieve", "crc32", "interpreter", "bigint", "qsort", "hash-table", "lz-compress", "nbody", "fft",
                 "matmul-avx2")
SCALING_THREADS = (1, 2, 8)


class Suite:
    """The program `ruche-bench` and how each side runs it."""

    def __init__(self, program, kernel, folder):
        self.program, self.kernel = program, kernel
        self.initrd = os.path.join(folder, "suite-initrd")
        self.make_initrd()
        out = subprocess.run([program, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.items = [(name, group, int(cpus)) for name, group, cpus in (line.split() for line in out.splitlines())]

    def make_initrd(self):
        """An initial RAM disk with the suite as its only program."""
        archive = initramfs.Archive()
        for folder in ("dev", "proc"):
            archive.add(folder, stat.S_IFDIR | 0o755)
        archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
        with open(self.program, "rb") as f:
            archive.add("init", stat.S_IFREG | 0o755, f.read())
        with open(self.initrd, "wb") as f:
            f.write(archive.bytes())

    def command(self, side, arguments, cpus):
        if isinstance(side, sides.Native):
            return side.pin([self.program, *arguments], cpus)
        return side.command(self.guest(arguments, cpus))

    def guest(self, arguments, cpus):
        return sides.Guest(kernel=self.kernel, initrd=self.initrd, cpus=cpus,
                           cmdline=" ".join(["console=ttyS0 quiet panic=-1 --", *arguments]))

    def run(self, side, names, ms, cpus=1, threads=0):
        """One run of some items: {item: figures}."""
        arguments = ["--ms", str(ms), "--threads", str(threads), ",".join(names)]
        results = sides.run_lines(side.name, self.command(side, arguments, cpus), 300 + 2 * len(names) * ms / 1000)
        missing = set(names) - set(results)
        if missing:
            raise sides.Failed(f"{side.name} said nothing of {', '.join(sorted(missing))}")
        return results

    def select(self, chosen, cpus):
        """[(item, group)] for a run on so many processors."""
        if cpus == 1:
            items = [(name, group) for name, group, needed in self.items if needed == 1]
        else:
            items = [(name, group + ", 2 cpus") for name, group, needed in self.items
                     if needed == 2 or name in TWO_CPU_ITEMS]
        return [(name, group) for name, group in items if chosen("suite", group, name)]


def run_items(bench, suite, cpus):
    """The items as rows, the sides taking turns."""
    items = suite.select(bench.chosen, cpus)
    if not items:
        return
    names = [name for name, _ in items]
    for number in range(bench.rounds):
        for side in bench.sides:
            bench.say(f"suite, {cpus} cpu, round {number + 1} of {bench.rounds}: {side.name}")
            for name, figures in suite.run(side, names, bench.ms, cpus).items():
                bench.add("suite", dict(items)[name], name, side.name, figures)


def run_scaling(bench, suite):
    """One thread, two on two processors, and eight on eight virtual ones; they share the time for an item."""
    if not bench.chosen("scaling", "scaling", "scaling"):
        return
    for number in range(bench.rounds):
        for side in bench.sides:
            for threads in SCALING_THREADS:
                bench.say(f"{threads} threads, round {number + 1} of {bench.rounds}: {side.name}")
                for name, figures in suite.run(side, SCALING_ITEMS, bench.ms * threads // 2 + 100, threads, threads).items():
                    bench.add("scaling", str(threads), name, side.name, figures)
