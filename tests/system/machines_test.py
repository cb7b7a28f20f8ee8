#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Named machines with guests: a Debian that is created, started, visited on its console, halted, stopped, started again,
killed and removed."""
import os
import signal
import subprocess
import unittest

from machine import ENGINE
from named import Named


class Machines(Named):
    def test_life_of_a_debian(self):
        self.ruche("create", "web", *(["--engine", ENGINE] if ENGINE else []), "--memory", "512M", "debian")
        self.ruche("start", "web")
        web = self.inspect("web")
        self.assertEqual(web["status"], "running")
        c = self.console("web")
        c.expect("root@debian:~# ", 180)
        c.run("bind 'set enable-bracketed-paste off' 2>/dev/null; PS1=; stty -echo; dmesg -n 1")
        self.assertEqual(c.run("cat /sys/class/dmi/id/product_uuid"), web["uuid"])
        self.assertIn(web["config"]["nets"][0]["mac"], c.run("cat /sys/class/net/*/address"))
        c.run("echo still here >/root/note; sync")
        self.assertEqual(c.close(), 128 + signal.SIGTERM)

        # What was said before is shown again, and the machine is as it was.
        c = self.console("web")
        self.assertEqual(c.run("cat /root/note"), "still here")
        self.assertIn(web["uuid"], c.text)
        self.ruche("pause", "web")
        self.assertEqual(self.inspect("web")["status"], "paused")
        self.ruche("resume", "web")
        self.assertEqual(c.run("echo go on"), "go on")
        c.close()

        self.ruche("set", "web", "cpus=2")
        self.ruche("restart", "web")
        c = self.console("web")
        # The end of the life before comes first.
        c.expect("reboot: Power down", 60)
        c.expect("root@debian:~# ", 180)
        c.run("PS1=; stty -echo")
        self.assertEqual(c.run("cat /root/note; nproc").splitlines(), ["still here", "2"])
        c.close()
        self.ruche("stop", "web")
        self.assertEqual(self.ruche("wait", "web"), "")
        self.assertEqual(self.inspect("web")["exit_status"], 0)
        subprocess.run(["qemu-img", "check", "-q", web["folder"] + "/disk.qcow2"], check=True)
        self.ruche("start", "web")
        os.kill(self.inspect("web")["pid"], signal.SIGKILL)
        self.ruche("wait", "web", status=125)
        self.assertRegex(self.ruche("ls"), r"(?m)^web +died .*killed by signal 9 \(Killed\)$")
        self.ruche("rm", "web")
        self.assertEqual(os.listdir(self.path("data/ruche/machines")), [])


unittest.main(verbosity=2)
