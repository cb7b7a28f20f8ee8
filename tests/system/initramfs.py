# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes an initial RAM disk of busybox and a script, as an uncompressed cpio archive in the "newc" form."""
import os
import shutil
import stat

APPLETS = ["sh", "mount", "cat", "echo", "poweroff", "reboot", "nproc", "sleep", "uname", "date", "free", "grep", "stty",
           "sha256sum", "dd", "ls", "ps", "head", "seq", "time", "true", "insmod", "ip", "nc", "tr", "wc", "sync",
           "setsid", "cttyhack", "mkdir", "kill", "awk", "dmesg", "find", "gzip", "md5sum", "test", "sed", "taskset"]

INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
echo "init runs"
{body}
"""

# A shell on the console that a test can drive.
SHELL = """export PS1= PATH=/bin
stty -echo
echo "shell ready"
exec setsid cttyhack sh
"""


class Archive:
    def __init__(self):
        self.parts = []
        self.inode = 0

    def add(self, name, mode, data=b"", device=(0, 0)):
        self.inode += 1
        name_bytes = name.encode() + b"\0"
        fields = [self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name_bytes), 0]
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        for part in (header + name_bytes, data):
            self.parts.append(part + b"\0" * (-len(part) % 4))

    def finished(self):
        """The parts of the whole, in order."""
        self.add("TRAILER!!!", 0)
        return self.parts

    def bytes(self):
        return b"".join(self.finished())


def busybox():
    path = shutil.which("busybox", path=os.environ.get("PATH", "") + ":/bin:/usr/bin")
    if not path:
        raise FileNotFoundError("busybox is missing (Debian package busybox-static; ./dev deps installs it)")
    with open(path, "rb") as f:
        return f.read()


def make(path, body=SHELL, files=()):
    """Writes the archive to `path`. `body` goes on in /init; `files` are (name, bytes) pairs."""
    archive = Archive()
    for folder in ("bin", "dev", "proc", "sys", "tmp"):
        archive.add(folder, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, busybox())
    for applet in APPLETS:
        archive.add("bin/" + applet, stat.S_IFLNK | 0o777, b"busybox")
    for name, data in files:
        archive.add(name, stat.S_IFREG | 0o644, data)
    archive.add("init", stat.S_IFREG | 0o755, INIT.format(body=body).encode())
    with open(path, "wb") as f:
        f.write(archive.bytes())
    return path
