# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of the benchmark that boots: the time from the command to a line on the console."""
import os
import subprocess
import sys
import threading
import time

import sides

sys.path.insert(0, os.path.join(sides.HERE, "..", "tests", "system"))
import initramfs  # noqa: E402

NAMES = ("busybox-init", "debian-login", "debian-login-2cpu")
TIMEOUT = 180


def cases(bench):
    """Name, what the console says at the end of it, and the guest."""
    initrd = initramfs.make(os.path.join(bench.folder, "busybox-initrd"), "poweroff -f")
    image = bench.image
    yield NAMES[0], b"init runs", lambda: sides.Guest(image["kernel"], initrd, "console=ttyS0 quiet")
    for cpus in (1, 2):
        def debian(cpus=cpus):
            disk = sides.overlay(image["disk"], os.path.join(bench.folder, "boot.qcow2"))
            return sides.Guest(image["kernel"], image["initrd"], image["cmdline"], cpus=cpus, disks=(disk,), net=True)
        yield NAMES[cpus], b"login:", debian


def measure(side, guest, pattern):
    """Seconds until the console shows the pattern."""
    started = time.monotonic()
    process = subprocess.Popen(side.command(guest), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    watchdog = threading.Timer(TIMEOUT, process.terminate)
    watchdog.start()
    text = b""
    try:
        while pattern not in text:
            more = os.read(process.stdout.fileno(), 65536)
            if not more:
                raise sides.Failed(f"{side.name}: no '{pattern.decode()}'; the console ended with:\n"
                                   f"{text[-2000:].decode(errors='replace')}")
            text += more
        return time.monotonic() - started
    finally:
        watchdog.cancel()
        process.stdin.close()
        sides.stop(process, side.stop_signal)


def run(bench):
    for name, pattern, guest in cases(bench):
        if not bench.chosen("boot", "start-up", name):
            continue
        for number in range(bench.rounds):
            for side in bench.sides:
                if isinstance(side, sides.Native):
                    continue
                bench.say(f"{name}, round {number + 1} of {bench.rounds}: {side.name}")
                bench.add_time("boot", "start-up", name, side.name, measure(side, guest(), pattern))
