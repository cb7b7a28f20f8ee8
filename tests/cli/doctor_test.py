#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`ruche doctor` against what this test finds out about the host by itself. What it says where KVM is: tests/nested/doctor.sh."""
import json
import os
import unittest

from harness import RUCHE, Case

VMM = os.path.join(os.path.dirname(RUCHE), "../vmm/ruche-vmm")
NAMES = ["processor", "kvm", "user-namespaces", "cgroups", "io_uring", "huge-pages", "tun"]


def opens(path):
    try:
        os.close(os.open(path, os.O_RDWR))
        return True
    except OSError:
        return False


class Doctor(Case):
    def setUp(self):
        super().setUp()
        self.env["RUCHE_VMM"] = VMM

    def report(self, status=0, **environment):
        out, _ = self.ruche("doctor", "--json", status=status, **environment)
        return json.loads(out)

    def fake(self, answer):
        return self.write("vmm", f"#!/bin/sh\n[ \"$1\" = --probe ] && echo '{json.dumps(answer)}'\n", 0o755)

    def test_tells_the_truth_about_this_host(self):
        report = self.report()
        checks = {c["name"]: c for c in report["checks"]}
        self.assertEqual([c["name"] for c in report["checks"]][:len(NAMES)], NAMES)
        with open("/proc/cpuinfo", encoding="ascii") as f:
            flags = next(line for line in f if line.startswith("flags")).split()
        hardware = "svm" in flags or "vmx" in flags
        self.assertEqual(checks["processor"]["status"] == "ok", hardware)
        self.assertEqual(checks["kvm"]["status"] == "ok", hardware and opens("/dev/kvm"))
        self.assertEqual(checks["tun"]["status"] == "ok", opens("/dev/net/tun"))
        with open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", encoding="ascii") as f:
            self.assertEqual(checks["huge-pages"]["status"] != "ok", "[never]" in (text := f.read()) or "[deny]" in text)
        engines = [c["finding"] for c in report["checks"] if c["name"] == "engine"]
        for finding in (checks["kvm"]["finding"], next(text for text in engines if text.startswith("kvm "))):
            if not os.path.exists("/dev/kvm"):
                self.assertIn("there is no /dev/kvm", finding)
            elif not hardware:
                self.assertIn("no hardware virtualisation below it", finding)
        self.assertTrue(any(text.startswith("bt works") for text in engines), engines)
        self.assertEqual(report["engine"], "kvm" if any(t.startswith("kvm works") for t in engines) else "bt")

    def test_what_is_absent_has_a_remedy_and_what_is_there_none(self):
        for check in self.report()["checks"]:
            if check["name"] != "engine":
                self.assertEqual(check["status"] == "ok", check["remedy"] is None, check)

    def test_table_says_the_same(self):
        out, _ = self.ruche("doctor")
        for check in self.report()["checks"]:
            self.assertRegex(out, rf"(?m)^{check['status']} +{check['name']} ")
            self.assertIn(check["finding"], out)

    def test_no_engine(self):
        vmm = self.fake([{"engine": "kvm", "usable": False, "cpu": "", "reason": "no such luck"}])
        report = self.report(status=1, RUCHE_VMM=vmm)
        self.assertIsNone(report["engine"])
        self.assertEqual(report["checks"][-1]["status"], "broken")
        self.assertIn("no such luck", self.ruche("doctor", status=1, RUCHE_VMM=vmm)[0])

    def test_first_usable_engine_is_taken(self):
        vmm = self.fake([{"engine": e, "usable": u, "cpu": "v3", "reason": None} for e, u in
                         (("kvm", False), ("first", True), ("second", True))])
        self.assertEqual(self.report(RUCHE_VMM=vmm)["engine"], "first")

    def test_no_machine_program(self):
        report = self.report(status=1, RUCHE_VMM=self.path("nothing"))
        self.assertEqual([c["status"] for c in report["checks"][-2:]], ["broken", "broken"])

    def test_wrong_usage(self):
        self.one_line(self.ruche("doctor", "now", status=2)[1])


unittest.main()
