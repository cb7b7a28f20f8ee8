#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`ruche doctor` against what this test finds out about the host by itself, whatever host that is.

With a KVM that works, that may not be opened, and that was taken away: tests/nested/doctor.sh.
"""
import errno
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import unittest

from harness import RUCHE, Case

VMM = os.path.join(os.path.dirname(RUCHE), "../vmm/ruche-vmm")
NAMES = ["processor", "kvm", "user-namespaces", "cgroups", "io_uring", "huge-pages", "tun"]


KVM_GET_API_VERSION = 0xae00
NOBODY = 65534


def opens(path):
    try:
        os.close(os.open(path, os.O_RDWR))
        return True
    except OSError:
        return False


def hardware():
    """Has the processor virtualisation? Where a module that needs it drives /dev/kvm it must have."""
    with open("/proc/cpuinfo", encoding="ascii") as f:
        flags = next(line for line in f if line.startswith("flags")).split()
    there = "svm" in flags or "vmx" in flags
    driven = opens("/dev/kvm") and any(os.path.exists(f"/sys/module/kvm_{name}") for name in ("amd", "intel"))
    assert there or not driven, "kvm_amd or kvm_intel is loaded, and /proc/cpuinfo shows neither SVM nor VMX"
    return there


def kvm_truth():
    """What must be said about /dev/kvm, for whoever runs this."""
    try:
        fd = os.open("/dev/kvm", os.O_RDWR)
    except OSError as e:
        if e.errno == errno.ENOENT:
            return "there is no /dev/kvm"
        if not hardware():
            return "no hardware virtualisation below it"
        return os.strerror(e.errno) if e.errno in (errno.EACCES, errno.EPERM) else "/dev/kvm"
    try:
        version = fcntl.ioctl(fd, KVM_GET_API_VERSION, 0)
    finally:
        os.close(fd)
    if not hardware():
        return "no hardware virtualisation below it"
    return "usable" if version == 12 else "version"


def as_nobody(fn):
    """The result of a function, by a process of user nobody; a string."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(write, fn().encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as f:
        text = f.read()
    os.waitpid(pid, 0)
    return text


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
        self.assertEqual(checks["processor"]["status"] == "ok", hardware())
        self.assertEqual(checks["tun"]["status"] == "ok", opens("/dev/net/tun"))
        with open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", encoding="ascii") as f:
            self.assertEqual(checks["huge-pages"]["status"] != "ok", "[never]" in (text := f.read()) or "[deny]" in text)
        self.check_engines(report, kvm_truth())

    def check_engines(self, report, truth):
        kvm = next(c for c in report["checks"] if c["name"] == "kvm")
        engines = [c["finding"] for c in report["checks"] if c["name"] == "engine"]
        engine = next(text for text in engines if text.startswith("kvm "))
        if truth == "usable":
            self.assertEqual(kvm["status"], "ok")
            self.assertTrue(engine.startswith("kvm works"), engine)
        else:
            self.assertIn(truth, engine)
            if truth != "version":
                self.assertEqual(kvm["status"], "absent")
                self.assertIn(truth, kvm["finding"])
        self.assertTrue(any(text.startswith("bt works") for text in engines), engines)
        self.assertEqual(report["engine"], "kvm" if truth == "usable" else "bt")

    @unittest.skipIf(os.getuid(), "this is an unprivileged user: all other tests here are this one")
    def test_tells_the_truth_to_an_unprivileged_user(self):
        with tempfile.TemporaryDirectory() as folder:  # the build may be where nobody else can look
            os.chmod(folder, 0o755)
            for program in (RUCHE, VMM):
                shutil.copy(program, folder)
            p = subprocess.run([os.path.join(folder, "ruche"), "doctor", "--json"], stdout=subprocess.PIPE, check=True,
                               user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
                               env={"RUCHE_VMM": os.path.join(folder, "ruche-vmm"), "PATH": os.environ["PATH"]})
        self.check_engines(json.loads(p.stdout), as_nobody(kvm_truth))

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
