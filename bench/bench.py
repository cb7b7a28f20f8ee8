#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures Ruche against the host itself and against QEMU's TCG, on the same kernel and programs.

The sides take turns, so that whatever else the machine does falls on all of them. A figure is the median over the rounds.
An ITEM is an item of the suite, a program, a boot, or a group of them: integer, memory, float, system, scaling, start-up,
programs, footprint. Without any it is all of them.
"""
import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile

import boot
import footprint
import programs
import report
import results
import sides
import suite

QUICK = {"rounds": 1, "ms": 60}
FULL = {"rounds": 5, "ms": 150}


class Bench:
    """What the parts share: who takes part, how often, and where the figures go."""

    def __init__(self, arguments, folder):
        self.items = arguments.items
        self.rounds, self.ms = arguments.rounds, arguments.ms
        self.quick = arguments.quick
        self.folder, self.cache = folder, arguments.cache
        self.sides = sides.find([name for name in arguments.sides.split(",") if name], arguments.ruche, arguments.cache)
        self.results = results.Results([side.name for side in self.sides], arguments.best)
        out = subprocess.run([arguments.ruche, "image", "inspect", "debian", "--json"], check=True, stdout=subprocess.PIPE)
        self.image = json.loads(out.stdout)

    def chosen(self, part, group, name):
        words = {part, group, name, group.split(",")[0]}
        return not self.items or bool(words & set(self.items))

    def add(self, part, group, name, side, figures):
        self.results.add(part, group, name, side, figures)

    def add_time(self, part, group, name, side, seconds):
        self.add(part, group, name, side, {"median": seconds * 1e9, "best": seconds * 1e9, "checksum": "-"})

    def side(self, name):
        """The side of that name, or None."""
        return next((side for side in self.sides if side.name == name), None)

    def say(self, text):
        print(text, file=sys.stderr, flush=True)


def host(image):
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    with open(image["kernel"], "rb") as f:
        version = re.search(rb"\d+\.\d+\.\d+-[\w-]+ \(debian", f.read(65536))
    return {"processor": model, "cpus": os.cpu_count(), "kernel": platform.release().split("-")[0], "load": os.getloadavg()[0],
            "guest kernel": version.group(0).split()[0].decode() if version else "unknown"}


def check_items(bench, the_suite):
    """Refuses a word that chooses nothing."""
    known = {"suite", "scaling", "boot", "start-up", "programs", "footprint", *programs.NAMES, *boot.NAMES}
    for name, group, _ in the_suite.items:
        known |= {name, group}
    unknown = [item for item in bench.items if item not in known]
    if unknown:
        raise sides.Failed(f"there is no {', '.join(unknown)}; there are: {', '.join(sorted(known))}")


def measure(bench, arguments):
    the_suite = suite.Suite(arguments.suite, bench.image["kernel"], bench.folder)
    check_items(bench, the_suite)
    suite.run_items(bench, the_suite, 1)
    if os.cpu_count() > 1:
        suite.run_items(bench, the_suite, 2)
        suite.run_scaling(bench, the_suite)
    boot.run(bench)
    programs.run(bench)
    footprint.run(bench, the_suite)


def tables(found, about, versions):
    lines = report.machine_lines(about, versions)
    texts = ["".join(f"- {line}\n" for line in lines), report.rows_table(found), report.scaling_table(found),
             report.goals_table(found)]
    return "\n".join(text for text in texts if text)


def write_docs(folder, found, about, text):
    with open(os.path.join(folder, "benchmark-results.md"), "w", encoding="utf-8") as f:
        f.write("# Benchmark results\n\nWritten by `./dev bench --docs`; [benchmark.md](benchmark.md) says what is measured "
                f"and how.\n\n![chart](benchmark.svg)\n\n{text}")
    with open(os.path.join(folder, "benchmark.svg"), "w", encoding="utf-8") as f:
        f.write(report.chart(found, f"Times slower than native on {about['processor']} (shorter is better)"))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", nargs="*", metavar="ITEM")
    parser.add_argument("--ruche", required=True, help="the program `ruche`")
    parser.add_argument("--suite", required=True, help="the program `ruche-bench`")
    parser.add_argument("--cache", required=True, help="folder for what is fetched and made once")
    parser.add_argument("--sides", default="", help="of native, ruche, qemu, qemu-7.2, ... with commas between")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, help=f"default {FULL['rounds']}")
    parser.add_argument("--ms", type=int, help=f"for each item of the suite and round (default {FULL['ms']})")
    parser.add_argument("--best", action="store_true", help="best instead of median times, for a machine with other work")
    parser.add_argument("--json", default="bench.json", help="where the figures go (default bench.json)")
    parser.add_argument("--load", metavar="FILE", help="measure nothing, take the figures of an earlier run")
    parser.add_argument("--docs", metavar="FOLDER", help="also write the tables and the chart there")
    arguments = parser.parse_args()
    defaults = QUICK if arguments.quick else FULL
    arguments.rounds = arguments.rounds or defaults["rounds"]
    arguments.ms = arguments.ms or defaults["ms"]
    arguments.cache = os.path.abspath(arguments.cache)
    return arguments


def fresh(arguments):
    """Measures; gives the results, the host and the versions."""
    with tempfile.TemporaryDirectory(prefix="ruche-bench-") as folder:
        bench = Bench(arguments, folder)
        about = host(bench.image)
        if about["load"] > 0.3:
            bench.say(f"other work is running (load {about['load']:.1f}): medians mean little, --best is safer")
        measure(bench, arguments)
    versions = {side.name: side.version for side in bench.sides}
    with open(arguments.json, "w", encoding="utf-8") as f:
        json.dump({"host": about, "versions": versions, **bench.results.to_json()}, f, indent=2)
        f.write("\n")
    return bench.results, about, versions


def stored(arguments):
    """The same from a file."""
    with open(arguments.load, encoding="utf-8") as f:
        data = json.load(f)
    found = results.Results(data["versions"], arguments.best)
    found.load(data)
    return found, data["host"], data["versions"]


def main():
    arguments = parse_arguments()
    try:
        found, about, versions = stored(arguments) if arguments.load else fresh(arguments)
    except sides.Failed as failed:
        sys.exit(f"bench: {failed}")
    text = tables(found, about, versions)
    print("\n" + text)
    if arguments.docs:
        write_docs(arguments.docs, found, about, text)


if __name__ == "__main__":
    main()
