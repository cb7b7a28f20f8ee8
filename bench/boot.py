#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a boot takes: Ruche's binary translation and QEMU's TCG, on the same kernel, initial RAM disk and disk.

Measured is the time from the command to a line on the console. The two take turns, so that whatever else the machine does
falls on both; the table shows medians, and by what factor Ruche is faster (below 1: slower).
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "system"))

VMMS = ("ruche", "qemu")


def cases(machine, initramfs, folder):
    """Name, what the console says at the end of it, and how to start it."""
    debian = machine.image()
    initrd = initramfs.make(os.path.join(folder, "initrd"), "poweroff -f")
    yield "busybox init, 1 cpu", "init runs", dict(kernel=debian["kernel"], initrd=initrd, memory="1G",
                                                   cmdline="console=ttyS0 quiet")
    for cpus in (1, 2):
        yield f"Debian login, {cpus} cpu", "login:", dict(image="debian", memory="1G", cpus=cpus)


def measure(machine, vmm, pattern, arguments, timeout):
    options = ["--engine", "bt"]
    with machine.Machine(vmm=vmm, options=options, **arguments) as m:
        m.expect(pattern, timeout)
        return time.monotonic() - m.started


def host():
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return {"processor": model, "cpus": os.cpu_count(), "kernel": platform.release(), "qemu": qemu.splitlines()[0]}


def print_table(results):
    print(f"\n{'':24}" + "".join(f"{vmm:>10}" for vmm in VMMS) + f"{'factor':>10}")
    factors = []
    for result in results:
        medians = [result["median"].get(vmm) for vmm in VMMS]
        row = "".join(f"{median:>8.2f} s" if median else f"{'-':>10}" for median in medians)
        if all(medians):
            factors.append(medians[1] / medians[0])
            row += f"{factors[-1]:>10.2f}"
        print(f"{result['name']:24}{row}")
    if factors:
        print(f"{'geometric mean':24}{'':20}{statistics.geometric_mean(factors):>10.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ruche", required=True, help="the program `ruche`")
    parser.add_argument("--runs", type=int, default=5, help="of each case (default 5)")
    parser.add_argument("--only", choices=VMMS, help="measure one side alone")
    parser.add_argument("--case", help="only cases whose name contains this")
    parser.add_argument("--timeout", type=float, default=180, help="seconds for one boot (default 180)")
    parser.add_argument("--json", default="bench.json", help="where the figures go (default bench.json)")
    arguments = parser.parse_args()
    os.environ["RUCHE"] = arguments.ruche
    import initramfs
    import machine

    results = []
    with tempfile.TemporaryDirectory(prefix="ruche-bench-") as folder:
        chosen = [c for c in cases(machine, initramfs, folder) if not arguments.case or arguments.case in c[0]]
        for name, pattern, how in chosen:
            times = {vmm: [] for vmm in VMMS if arguments.only in (None, vmm)}
            for run in range(arguments.runs):
                for vmm, sample in times.items():
                    try:
                        sample.append(measure(machine, vmm, pattern, how, arguments.timeout))
                    except machine.Failed as failed:
                        sys.exit(f"bench: {name} under {vmm}: {failed}")
                    print(f"{name}: run {run + 1} of {arguments.runs}, {vmm}: {sample[-1]:.2f} s", file=sys.stderr)
            results.append({"name": name, "times": times,
                            "median": {vmm: statistics.median(sample) for vmm, sample in times.items()}})
    print_table(results)
    with open(arguments.json, "w", encoding="utf-8") as f:
        json.dump({"host": host(), "results": results}, f, indent=2)
        f.write("\n")


main()
