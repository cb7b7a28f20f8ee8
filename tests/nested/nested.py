#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a command in an outer machine that has a /dev/kvm, on a host that has none: QEMU's TCG emulates AMD's SVM, Debian's
cloud kernel drives it. The command's output is passed on, its exit status is this program's.

usage: nested.py [OPTION]... -- COMMAND [ARGUMENT]...

  --add FILE[=PATH]   puts a file into the machine, with the shared libraries it needs; PATH is the same if not given
  --cpus N            processors (default 1). With more than one, QEMU before 8.1 may keep the translation of code that
                      another processor has just changed; Linux patches itself when KVM makes processors, and then
                      meets a breakpoint for ever that is long gone
  --memory SIZE       default 2G
  --timeout SECONDS   default 300; a machine that has not ended by then is killed, status 124
  --disk FILE         a file that the machine finds as /dev/vda, read-only (with the modules for it)
  --module NAME       loads a further module of the kernel, and what it needs

The command is found by its path as given with --add, or among busybox's applets. 125: the outer machine failed.
"""
import argparse
import glob
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../system"))
import initramfs  # noqa: E402

FETCH = os.path.join(HERE, "../debian-package")
MODULES = ["irqbypass", "kvm", "kvm-amd"]
DISK_MODULES = ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk"]
APPLETS = [*initramfs.APPLETS, "chmod", "chown", "cp", "env", "id", "ln", "mv", "printf", "rm", "rmmod", "stat", "su", "timeout",
           "touch", "umount", "cmp", "cut", "diff", "expr", "mknod", "pgrep", "sort", "tail", "tee", "uptime", "which"]
STATUS = re.compile(rb"nested: the command gave (\d+)\r?\n")

INIT = """#!/bin/sh
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
mount -t tmpfs -o mode=755 run /run
ip link set lo up
for module in {modules}; do insmod /modules/$module.ko || echo "nested: cannot load $module"; done
stty -onlcr
{command}
status=$?
echo "nested: the command gave $status"
exec nested-exit $status
"""


def fail(why):
    print(f"nested: {why}", file=sys.stderr)
    sys.exit(125)


def kernel():
    """The folder of the unpacked kernel package."""
    p = subprocess.run([FETCH, "linux-image-cloud-amd64"], stdout=subprocess.PIPE, text=True, check=False)
    if p.returncode:
        fail("there is no kernel for the outer machine")
    return p.stdout.strip()


def module_file(folder, name):
    found = glob.glob(f"{folder}/lib/modules/*/kernel/**/{name}.ko", recursive=True)
    if not found:
        fail(f"the kernel in {folder} has no module {name}")
    return found[0]


def libraries(path):
    """The shared objects that a program needs; none for what is no dynamic program."""
    p = subprocess.run(["ldd", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    if "not found" in p.stdout:
        fail(f"{path} lacks a library: {p.stdout}")
    return re.findall(r"(/\S+) \(0x", p.stdout) if p.returncode == 0 else []


class Tree:
    """The files of the machine, by their place in it."""

    def __init__(self):
        self.archive = initramfs.Archive()
        self.known = set()

    def folder(self, path):
        if path in ("", "/") or path in self.known:
            return
        self.folder(os.path.dirname(path))
        self.known.add(path)
        self.archive.add(path.lstrip("/"), stat.S_IFDIR | 0o755)

    def data(self, path, data, mode=0o755):
        if path in self.known:
            return
        self.folder(os.path.dirname(path))
        self.known.add(path)
        self.archive.add(path.lstrip("/"), stat.S_IFREG | mode, data)

    def file(self, source, path=None):
        path = path or os.path.abspath(source)
        with open(source, "rb") as f:
            self.data(path, f.read(), stat.S_IMODE(os.stat(source).st_mode))
        for library in libraries(source):
            self.file(library, library)

    def link(self, path, target):
        self.folder(os.path.dirname(path))
        self.archive.add(path.lstrip("/"), stat.S_IFLNK | 0o777, target.encode())


def make_tree(folder, files, modules, command):
    tree = Tree()
    for path in ("/bin", "/dev", "/proc", "/sys", "/tmp", "/run", "/root", "/etc", "/modules"):
        tree.folder(path)
    tree.archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    tree.data("/bin/busybox", initramfs.busybox())
    for applet in sorted(set(APPLETS)):
        tree.link(f"/bin/{applet}", "busybox")
    tree.data("/etc/passwd", b"root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/tmp:/bin/sh\n", 0o644)
    tree.data("/etc/group", b"root:x:0:\nnogroup:x:65534:\n", 0o644)
    for name in modules:
        tree.file(module_file(folder, name), f"/modules/{name}.ko")
    for spec in files:
        source, _, path = spec.partition("=")
        tree.file(source, path or None)
    words = " ".join(shlex.quote(word) for word in command)
    tree.data("/init", INIT.format(modules=" ".join(modules), command=words).encode())
    return tree


def run(initrd, folder, args):
    """Starts the outer machine; gives the command's status."""
    kernel_file = glob.glob(f"{folder}/boot/vmlinuz-*")[0]
    # TCG's processors share the host's TSC, whatever their kernel may measure; there is nothing to mitigate in a
    # translator.
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", str(args.cpus), "-m", args.memory,
               "-kernel", kernel_file, "-initrd", initrd, "-append",
               "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check mitigations=off",
               "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
               "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
    if args.disk:
        command += ["-drive", f"file={args.disk},format=raw,if=virtio,readonly=on"]
    if not shutil.which(command[0]):
        fail("qemu-system-x86_64 is missing (Debian package qemu-system-x86; ./dev deps installs it)")
    status = None
    with subprocess.Popen(["timeout", "-k", "5", str(args.timeout), *command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE) as p:
        for line in p.stdout:
            match = STATUS.search(line)
            if match:
                status = int(match.group(1))
                continue
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        ended = p.wait()
    if ended == 124:
        print(f"nested: not done within {args.timeout} s", file=sys.stderr)
        return 124
    # isa-debug-exit makes 2 n + 1 of n: both ways must say the same.
    if status is None or ended != (min(status, 127) << 1 | 1):
        fail(f"the outer machine ended with {ended}, the command with {status}")
    return status


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--add", action="append", default=[])
    parser.add_argument("--disk")
    parser.add_argument("--module", action="append", default=[])
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--timeout", type=int, default=300)
    parser.add_argument("--exit-program", required=not os.environ.get("NESTED_EXIT"), default=os.environ.get("NESTED_EXIT"))
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    folder = kernel()
    tree = make_tree(folder, [*args.add, f"{args.exit_program}=/bin/nested-exit"], MODULES + (DISK_MODULES if args.disk else []) + args.module,
                     args.command)
    with tempfile.NamedTemporaryFile(prefix="ruche-nested-") as f:
        for part in tree.archive.finished():
            f.write(part)
        f.flush()
        return run(f.name, folder, args)


if __name__ == "__main__":
    sys.exit(main())
