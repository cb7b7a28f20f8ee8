#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""One test in the outer machine, with the files it needs there.

usage: outer.py --exit-program FILE --ruche FILE --vmm FILE --kvm-fail-test FILE doctor|failures|move|migrate|debian
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def cloud_kernel():
    """The kernel of the image `debian`, which is also a good guest without its disk."""
    return image()["kernel"]


def image():
    out = subprocess.run([ARGS.ruche, "image", "inspect", "debian", "--json"], check=True, stdout=subprocess.PIPE).stdout
    return json.loads(out)


def script(name):
    return os.path.join(HERE, name)


def doctor(_):
    return {script("doctor.sh"): "/t/doctor.sh"}, ["sh", "/t/doctor.sh", "/t/ruche", "/t/ruche-vmm"], "1G", 300, []


def failures(_):
    calls = "100000" if "RUCHE_LONG" in os.environ else "20"
    return {ARGS.kvm_fail_test: "/t/kvm-fail-test"}, ["sh", "-c", f"/t/kvm-fail-test --calls {calls} 2>/dev/null"], "1G", 600, []


def move(folder, name="move.sh"):
    initrd = os.path.join(folder, "initrd")
    subprocess.run([sys.executable, script("move_initrd.py"), initrd], check=True)
    files = {script(name): "/t/" + name, cloud_kernel(): "/t/vmlinuz", initrd: "/t/initrd"}
    return files, ["sh", "/t/" + name, "/t/ruche", "/t/ruche-vmm", "/t/vmlinuz", "/t/initrd"], "2G", 900, []


def migrate(folder):
    return move(folder, "migrate.sh")


def debian(folder):
    source, disk = os.path.dirname(image()["kernel"]), os.path.join(folder, "disk")
    place = os.path.join(folder, "data/ruche/images/debian")
    os.makedirs(os.path.dirname(place))
    shutil.copytree(source, place)
    size = sum(os.path.getsize(os.path.join(source, name)) for name in os.listdir(source))
    subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-d", os.path.join(folder, "data"), disk,
                    f"{size // 900 + 65536}k"], check=True, stdout=subprocess.DEVNULL)
    return {script("debian.sh"): "/t/debian.sh"}, ["sh", "/t/debian.sh", "/t/ruche", "/t/ruche-vmm"], "3G", 900, ["--disk", disk]


CASES = {"doctor": doctor, "failures": failures, "move": move, "migrate": migrate, "debian": debian}

parser = argparse.ArgumentParser(usage=__doc__)
for option in ("--exit-program", "--ruche", "--vmm", "--kvm-fail-test"):
    parser.add_argument(option, required=True)
parser.add_argument("case", choices=CASES)
ARGS = parser.parse_args()

with tempfile.TemporaryDirectory(prefix="ruche-test-") as own:
    wanted, command, memory, seconds, options = CASES[ARGS.case](own)
    wanted.update({ARGS.ruche: "/t/ruche", ARGS.vmm: "/t/ruche-vmm"})
    add = [word for source, path in wanted.items() for word in ("--add", f"{source}={path}")]
    sys.exit(subprocess.run([sys.executable, script("nested.py"), "--exit-program", ARGS.exit_program, "--memory", memory,
                             "--timeout", str(seconds), *options, *add, "--", *command], check=False).returncode)
