# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of the benchmark that looks at memory: what a machine's process holds besides its guest's RAM."""
import os
import re
import subprocess
import sys
import time

import sides

sys.path.insert(0, os.path.join(sides.HERE, "..", "tests", "system"))
import initramfs  # noqa: E402

# Mappings of the guest's RAM: by Ruche's name for it, and without names by size. Ruche's cache of translations is as large.
GUEST_RAM = re.compile(r"memfd:ram-")
OTHER_FILE = re.compile(r"\S+-\S+ .* /.+")
GUEST_RAM_SIZE = 256 << 20
# Long enough for the boot and for what the kernel does after it.
IDLE_SECONDS = 15
SUITE_SECONDS = 300


def processes(pid):
    """The process and all below it."""
    found = [pid]
    for process in found:
        for task in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{task}/children", encoding="ascii") as f:
                found += [int(child) for child in f.read().split()]
    return found


def is_guest_ram(header, size):
    return bool(GUEST_RAM.search(header)) or (size >= GUEST_RAM_SIZE and not OTHER_FILE.match(header))


def beyond_guest(pid):
    """MiB of memory of the processes but for the guest's RAM, each shared page counted as a part of one."""
    total = 0
    for process in processes(pid):
        with open(f"/proc/{process}/smaps", encoding="ascii", errors="replace") as f:
            size, header = 0, ""
            for line in f:
                field = re.match(r"(\w+): +(\d+) kB", line)
                if not field:
                    header = line if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line) else header
                elif field.group(1) == "Size":
                    size = int(field.group(2)) << 10
                elif field.group(1) == "Pss" and not is_guest_ram(header, size):
                    total += int(field.group(2))
    return total / 1024


def watch(side, guest, seconds):
    """What the machine's processes held the last time they were looked at: before the guest's end, or after `seconds`."""
    process = subprocess.Popen(side.command(guest), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline, held = time.monotonic() + seconds, 0
    try:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                held = beyond_guest(process.pid) or held
            except (FileNotFoundError, ProcessLookupError):
                pass  # one of them has just ended
            time.sleep(0.3)
    finally:
        process.stdin.close()
        sides.stop(process)
    return held


def run(bench, suite):
    side = bench.side("ruche")
    if not side or not bench.chosen("footprint", "footprint", "footprint"):
        return
    bench.say("memory beyond the guest's: idle busybox")
    initrd = initramfs.make(os.path.join(bench.folder, "idle-initrd"), "sleep 1000")
    idle = sides.Guest(bench.image["kernel"], initrd, "console=ttyS0 quiet")
    bench.results.footprints["busybox"] = watch(side, idle, IDLE_SECONDS)
    bench.say("memory beyond the guest's: the suite")
    whole = ",".join(name for name, _, cpus in suite.items if cpus == 1)
    bench.results.footprints["suite"] = watch(side, suite.guest(["--ms", str(bench.ms), whole], 1), SUITE_SECONDS)
