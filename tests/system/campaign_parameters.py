#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian booted with kernel parameters that have it use other parts of the machine than it prefers: other timers, other
interrupt controllers, interrupts by line. Each time disk, network, clock and console work and it powers off, and the
kernel warns of nothing that it does not also warn of on QEMU's q35 with the same parameter.

PARAMETERS, separated by commas, are tried instead of all.
"""
import os
import re
import sys
import time
import unittest

from machine import Case, Machine, image, warnings

PARAMETERS = [
    "nox2apic", "noapic", "nolapic", "acpi=off", "acpi=noirq", "pci=nomsi", "pci=nomsi noapic", "pci=conf1", "pci=nommconf",
    "nosmp", "no-kvmclock", "no-kvmclock clocksource=hpet", "no-kvmclock clocksource=acpi_pm", "no-kvmclock tsc=unstable",
    "no-kvmclock notsc", "lapic=notscdeadline", "no-kvmclock lapic=notscdeadline hpet=disable", "nolapic_timer", "nohlt",
    "nopv", "nopvspin no_timer_check", "nohz=off highres=off", "mitigations=off", "pti=on spectre_v2=retpoline",
    "nosmap nosmep", "noxsave", "nopcid noinvpcid", "nokaslr", "ignore_loglevel",
]
NETWORK = "for i in $(seq 30); do ip -4 -br addr show scope global | grep -w UP && break; sleep 1; done"
DISK = ("dd if=/dev/vda of=/dev/null bs=1M count=40 iflag=direct status=none && "
        "dd if=/dev/zero of=/root/zeroes bs=1M count=20 oflag=direct status=none && rm /root/zeroes && sync")


def told(log):
    """The kernel's warnings by what they say apart from numbers; of a call trace only the line that begins it."""
    lines, inside = {}, False
    for line in warnings(log):
        begin, end = "[ cut here ]" in line, "[ end trace" in line
        if not (inside or begin or end) or line.startswith(("WARNING", "BUG")):
            lines[re.sub(r"\b(0x)?[0-9a-f]*\d[0-9a-f]*\b", "#", line)] = line
        inside = begin or inside and not end
    return lines


class Parameters(Case):
    def boot(self, parameter, vmm):
        """One boot; gives the kernel's warnings."""
        with Machine(image="debian", cmdline=image()["cmdline"] + " " + parameter, cpus=2, memory="1G", vmm=vmm) as m:
            m.login()
            # QEMU is here for the kernel's log alone.
            state = m.run("systemctl is-system-running --wait", 180, check=vmm != "qemu")
            m.run(NETWORK)
            if vmm != "qemu":
                self.assertEqual(state, "running")
                m.run("ip -4 route get 10.0.2.2")
                m.run(DISK)
                self.clock_runs(m)
            clock, cpus = m.run("cat /sys/devices/system/clocksource/clocksource0/current_clocksource"), m.run("nproc")
            print(f"'{parameter}' on {vmm}: reached the shell; clock {clock}, {cpus} processors", file=sys.stderr, flush=True)
            log = m.run("dmesg -r")
            if "acpi=off" not in parameter:  # without ACPI nobody knows how
                m.send("poweroff\n")
                self.assertEqual(m.wait(90), 0)
            return told(log)

    def clock_runs(self, m):
        guest, host = float(m.run("cat /proc/uptime").split()[0]), time.monotonic()
        m.run("sleep 3")
        guest = float(m.run("cat /proc/uptime").split()[0]) - guest
        self.assertAlmostEqual(guest / (time.monotonic() - host), 1, delta=0.15)

    def test_each(self):
        usual = self.boot("", "qemu")
        for parameter in os.environ["PARAMETERS"].split(",") if "PARAMETERS" in os.environ else PARAMETERS:
            with self.subTest(parameter=parameter):
                new = {kind: line for kind, line in self.boot(parameter, "ruche").items() if kind not in usual}
                if new:
                    there = self.boot(parameter, "qemu")
                    new = {kind: line for kind, line in new.items() if kind not in there}
                self.assertEqual(list(new.values()), [])


unittest.main(verbosity=2)
