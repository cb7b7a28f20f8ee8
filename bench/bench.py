#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures Ruche against the host itself and against QEMU's TCG, on the same kernel and programs.

The sides take turns, so that whatever else the machine does falls on all of them. A figure is the median over the rounds; a
ratio above 1 means slower than the host by that factor.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

import sides


def geometric_mean(values):
    values = [value for value in values if value]
    return statistics.geometric_mean(values) if values else None


def list_items(program):
    """[(item, group, processors)] in the suite's order."""
    out = subprocess.run([program, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [(name, group, int(cpus)) for name, group, cpus in (line.split() for line in out.splitlines())]


def measure(all_sides, suite_arguments, cpus, rounds, kind):
    """{side: {item: ns}}: the median over the rounds of each round's figure of that kind, after comparing checksums."""
    runs = {side.name: [] for side in all_sides}
    for number in range(rounds):
        for side in all_sides:
            print(f"round {number + 1} of {rounds}, {cpus} cpu: {side.name}", file=sys.stderr, flush=True)
            runs[side.name].append(side.run_suite(suite_arguments, cpus))
    reference = next(iter(runs.values()))[0]
    for name, sample in runs.items():
        for run in sample:
            for item, figures in run.items():
                if figures["checksum"] != reference[item]["checksum"]:
                    raise sides.Failed(f"{name}: the result of '{item}' is {figures['checksum']}, not "
                                       f"{reference[item]['checksum']}")
    over = min if kind == "best" else statistics.median
    return {name: {item: over([run[item][kind] for run in sample]) for item in reference}
            for name, sample in runs.items()}


def format_time(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


def print_table(items, figures, names):
    native = figures["native"]
    others = [name for name in names if name != "native"]
    print(f"\n{'':16}" + "".join(f"{name:>12}" for name in names) + "".join(f"{name + '/nat':>12}" for name in others))
    ratios = {}
    for item, group, _ in items:
        if item not in native:
            continue
        row = "".join(f"{format_time(figures[name][item]):>12}" for name in names)
        for name in others:
            ratio = figures[name][item] / native[item]
            ratios.setdefault(group, {}).setdefault(name, []).append(ratio)
            row += f"{ratio:>12.2f}"
        print(f"{item:16}{row}")
    for group, by_side in ratios.items():
        print(f"{'mean of ' + group:16}" + " " * 12 * len(names) +
              "".join(f"{geometric_mean(by_side[name]):>12.2f}" for name in others))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("items", nargs="*", help="items or groups of the suite (default: all)")
    parser.add_argument("--ruche", required=True, help="the program `ruche`")
    parser.add_argument("--suite", required=True, help="the program `ruche-bench`")
    parser.add_argument("--only", default="native,ruche", help="sides, with commas between")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ms", type=int, default=150, help="for each item and round (default 150)")
    parser.add_argument("--best", action="store_true", help="best instead of median times, for a machine with other work")
    parser.add_argument("--json", default="bench.json")
    arguments = parser.parse_args()
    out = subprocess.run([arguments.ruche, "image", "inspect", "debian", "--json"], check=True, stdout=subprocess.PIPE)
    kernel = json.loads(out.stdout)["kernel"]
    with tempfile.TemporaryDirectory(prefix="ruche-bench-") as folder:
        initrd = os.path.join(folder, "initrd")
        sides.make_initrd(arguments.suite, initrd)
        all_sides = [sides.Native(arguments.suite), sides.Ruche(arguments.ruche, kernel, initrd)]
        items = list_items(arguments.suite)
        names = arguments.items or [name for name, _, cpus in items if cpus == 1]
        figures = measure(all_sides, ["--ms", str(arguments.ms), ",".join(names)], 1, arguments.rounds,
                          "best" if arguments.best else "median")
    print_table(items, figures, [side.name for side in all_sides])


main()
