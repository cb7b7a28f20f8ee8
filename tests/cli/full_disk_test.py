#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A host whose disk is full, with the real ruche-vmm: guests get errors and lose nothing that was acknowledged, images stay
sound, and what cannot be made whole is not left behind.

The full disk is a small file system in memory, mounted where nobody else sees it: the test starts itself anew in a mount
namespace of its own, which needs root or unprivileged user namespaces. GUEST is the guest made of fill_disk.c.
"""
import json
import os
import socket
import struct
import subprocess
import sys
import unittest

from harness import RECIPE, Real, contents, processes, table, without_note

GUEST = os.environ.get("GUEST", "")
PIECE = 64 << 10
DISK = 16 << 20
ROOM = 6 << 20
NO_SPACE = "No space left on device"


class Small(Real):
    """With `self.full`, a small file system."""

    def setUp(self):
        super().setUp()
        self.full = self.path("full")
        os.mkdir(self.full)
        self.mount(self.full)

    def mount(self, path, options=f"size={ROOM}"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", path], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", path], check=True)

    def fill(self):
        """To the last byte."""
        with open(os.path.join(self.full, "filler"), "wb", buffering=0) as f:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while f.write(bytes(size)) == size:
                        pass
                except OSError as e:
                    self.assertIn(NO_SPACE, str(e))


@table(
    # Each makes DISK on the small file system.
    ("raw", "raw", "truncate -s 16M disk"),
    ("qcow2", "qcow2", "qemu-img create -q -f qcow2 disk 16M"),
    ("qcow2 with small clusters", "qcow2", "qemu-img create -q -f qcow2 -o cluster_size=512 disk 16M"),
    ("qcow2 with large clusters", "qcow2", "qemu-img create -q -f qcow2 -o cluster_size=512K disk 16M"),
    ("qcow2 version 2", "qcow2", "qemu-img create -q -f qcow2 -o compat=0.10,cluster_size=4k disk 16M"),
    ("qcow2 with lazy refcounts", "qcow2", "qemu-img create -q -f qcow2 -o lazy_refcounts=on disk 16M"),
    ("qcow2 on a base", "qcow2", "truncate -s 16M ../base && qemu-img create -q -f qcow2 -b ../base -F raw disk"),
    ("qcow2 with a snapshot", "qcow2", "qemu-img create -q -f qcow2 disk 16M && "
     "qemu-io -c 'write -P 7 0 1M' disk >/dev/null && qemu-img snapshot -c s disk"),
)
class Guests(Small):
    def row(self, form, make):
        self.assertTrue(GUEST, "GUEST is not set")
        subprocess.run(["sh", "-ec", make], cwd=self.full, check=True)
        disk, text = os.path.join(self.full, "disk"), self.path("text")
        _, err = self.ruche("run", "--kernel", GUEST, "--disk", f"{disk},format={form}", "--device",
                            f"debugcon,chardev=file:{text}", "--device", "debug-exit,iobase=0xf4", "--serial", "none",
                            status=1)  # what debug-exit makes of 0 failures
        with open(text, encoding="ascii") as f:
            pieces = f.readline().strip()
        self.assertEqual(len(pieces), DISK // PIECE)
        self.assertIn("-", pieces)
        self.assertRegex(without_note(err), rf"\Aruche-vmm: warning: disk '{disk}': writing \d+ bytes at \d+: {NO_SPACE}\n")
        if form == "qcow2":
            subprocess.run(["qemu-img", "check", "-q", disk], check=True)
        self.check_content(disk, form, pieces)
        self.assertEqual(processes(self.folder), [])

    def check_content(self, disk, form, pieces):
        content = self.path("content")
        subprocess.run(["qemu-img", "convert", "-f", form, "-O", "raw", disk, content], check=True)
        with open(content, "rb") as f:
            for number, sign in enumerate(pieces, 1):
                words = struct.unpack(f"<{PIECE // 4}I", f.read(PIECE))
                if sign == "+":
                    self.assertEqual(words, tuple(number << 16 | i for i in range(PIECE // 4)), number)


class Host(Small):
    """What Ruche itself writes."""

    def setUp(self):
        super().setUp()
        self.write("recipes/small", RECIPE, 0o755)
        self.env["XDG_DATA_HOME"] = self.full

    def left(self):
        """Files but for the one that fills the disk."""
        return sorted(name for name in contents(self.full) if name != "filler")

    def last_line(self, err):
        return self.one_line(err.splitlines(keepends=True)[-1])

    def test_build_fails_in_the_recipe(self):
        self.write("recipes/small", RECIPE + "head -c 100M /dev/zero >disk.raw\n", 0o755)
        _, err = self.ruche("image", "build", "small", status=125)
        self.assertIn("ruche: make image 'small': its recipe failed at step 2 (two)", err)
        self.assertEqual(self.left(), [])
        # There is room again, and nothing is in the way.
        self.write("recipes/small", RECIPE, 0o755)
        self.ruche("image", "build", "small")

    def test_build_fails_at_the_end(self):
        """The recipe leaves no room for the description of the image, and nothing that goes makes any."""
        self.write("recipes/small", RECIPE + "ln cmdline a; ln description b; ln build.log c; ln lock d\n"
                   "cat /dev/zero >>disk.qcow2 || :\n", 0o755)
        _, err = self.ruche("image", "build", "small", status=125)
        self.assertIn("image.json", self.last_line(err))
        self.assertIn(NO_SPACE, err)
        self.assertEqual(self.left(), [])

    def test_failed_build_leaves_the_old_image(self):
        self.ruche("image", "build", "small")
        before = contents(self.full)
        self.write("recipes/small", RECIPE + "cat /dev/zero >>disk.qcow2\n", 0o755)
        self.ruche("image", "build", "small", status=125)
        self.assertEqual(contents(self.full), before)

    def test_build_on_a_full_disk(self):
        os.makedirs(self.full + "/ruche/images")
        self.fill()
        _, err = self.ruche("image", "build", "small", status=125)
        self.assertIn("ruche: make image 'small': its recipe failed at step 2 (two) on a full disk", err)
        self.assertEqual(self.left(), [])

    def test_no_more_files(self):
        """Room for bytes, but not for another folder."""
        self.mount(self.full, f"size={ROOM},nr_inodes=3")
        self.assertTrue(self.files["kernel"])
        for command in ("image build small", "image ls"):
            self.row(command, 125, self.full + "/ruche/images", NO_SPACE)
        for option in ("--control ", "--serial unix:", "--serial file:"):
            self.row("run --kernel {kernel} " + option + self.full + "/1", 125, self.full + "/1", NO_SPACE)

    def test_overlays(self):
        self.ruche("image", "build", "small")
        self.ruche("run", "small", status=125)  # its kernel is none
        self.ruche("run", "--keep", "small", status=125)
        before = self.left()
        self.fill()
        self.row("run small", 125, "/ruche/overlays/", NO_SPACE)
        self.row("run --keep small", 125, "/ruche/machines/small", NO_SPACE)
        self.assertEqual(self.left(), before)

    def refused(self, *words):
        _, err = self.ruche(*words, status=125)
        self.assertIn(NO_SPACE, self.one_line(err))
        return err

    def machines(self):
        return {o["name"]: o["status"] for o in json.loads(self.ruche("ls", "-a", "--json")[0])}

    def test_machines(self):
        """What cannot be written is not half there; machines can still be looked at, stopped and removed."""
        kernel = self.files["kernel"]
        self.addCleanup(subprocess.run, [self.program, "stop", "--all", "--force", "--timeout", "0"], env=self.env, check=False)
        for name in ("web", "spare"):
            self.ruche("create", name, "--kernel", kernel, "--memory", "16M")
        folder = json.loads(self.ruche("inspect", "--json", "web")[0])[0]["folder"]
        with open(folder + "/disk.qcow2", "wb") as f:
            f.write(bytes(1 << 20))  # what there is to be won
        self.ruche("start", "web")
        before = self.left()
        self.fill()
        self.assertIn(self.full + "/ruche", self.refused("create", "other", "--kernel", kernel, "--cmdline", "x" * 4000))
        self.assertEqual(self.machines(), {"web": "running", "spare": "stopped"})
        self.assertEqual(self.left(), before)
        self.assertIn("spare", self.refused("start", "spare"))
        self.ruche("stop", "--timeout", "0", "--force", "web")
        self.ruche("rm", "web", "spare")
        self.assertEqual(self.machines(), {})
        self.assertEqual([name for name in self.left() if "catalog.db" not in name], [])
        self.assertEqual(processes(self.folder), [])

    def test_snapshots(self):
        """The machine goes on as it was, with what it was; with room again there is no trace of it."""
        self.addCleanup(subprocess.run, [self.program, "stop", "--all", "--force", "--timeout", "0"], env=self.env, check=False)
        self.ruche("image", "build", "small")
        self.ruche("create", "web", "--kernel", self.files["kernel"], "--memory", "16M", "small")
        folder = json.loads(self.ruche("inspect", "--json", "web")[0])[0]["folder"]
        for running in (False, True):
            if running:
                self.ruche("start", "web")
            before = self.left()
            self.fill()
            self.refused("snapshot", "create", "web", "one")
            self.assertEqual([name for name in self.left() if name not in before and not name.endswith("lock")], [])
            self.assertEqual(self.machines(), {"web": "running" if running else "stopped"})
            os.unlink(self.full + "/filler")
        # Room for the layer, and not for the memory.
        self.fill()
        os.truncate(self.full + "/filler", os.path.getsize(self.full + "/filler") - (168 << 10))
        self.ruche("snapshot", "create", "web", "one", status=125)
        self.assertEqual(self.machines(), {"web": "running"})
        os.unlink(self.full + "/filler")
        self.ruche("snapshot", "create", "web", "one")
        self.ruche("snapshot", "revert", "web", "one")
        self.assertEqual(self.machines(), {"web": "running"})
        self.ruche("stop", "--force", "--timeout", "0", "web")
        self.ruche("snapshot", "rm", "web", "one")
        self.assertEqual(len([name for name in os.listdir(folder) if name.endswith(".qcow2")]), 1)

    def test_serial_file(self):
        """Is no reason for the guest to stop; that text is lost is said once."""
        self.fill()
        for path in ("/dev/full", self.full + "/log"):
            out, err = self.ruche(*self.words("run --kernel {off} --serial file:" + path))
            self.assertEqual(out, "")
            self.assertIn(path, self.one_line(err))
            self.assertIn(NO_SPACE, err)

    def test_save(self):
        """A machine that cannot be saved goes on, and half of it is worth nothing."""
        p = self.start("run --kernel {kernel} --name m --memory 64M", stderr=subprocess.PIPE)
        self.fill()
        before = contents(self.full)
        _, err = self.ruche("save", "m", self.full + "/saved", status=125)
        self.assertIn(NO_SPACE, self.one_line(err))
        self.assertEqual(contents(self.full), before)
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.runtime + "/ruche/m.sock")
            f = s.makefile("rw")
            f.readline()
            for command in ("qmp_capabilities", "query-status"):
                f.write(json.dumps({"execute": command}) + "\n")
                f.flush()
                answer = json.loads(f.readline())
        self.assertEqual(answer["return"]["status"], "running")
        self.assertEqual(self.stop(p), 143)


class Backups(Small):
    """The folder is on the full disk, the machine is not."""

    def test_backups(self):
        folder = self.full + "/backups"
        self.addCleanup(subprocess.run, [self.program, "stop", "--all", "--force", "--timeout", "0"], env=self.env, check=False)
        self.ruche("create", "web", "--kernel", self.files["kernel"], "--memory", "16M", "--disk", self.files["qcow2"])
        self.ruche("backup", "web", folder)
        before = contents(folder)
        subprocess.run(["qemu-io", "-c", "write -P 5 1M 12M", self.files["qcow2"]], check=True, stdout=subprocess.DEVNULL)
        for running in (False, True):
            if running:
                self.ruche("start", "web")
            for words in (["web"], ["--full", "web"]):
                err = self.ruche("backup", *words, folder, status=125)[1]
                self.assertIn("ruche: backup of machine 'web': ", err)
                self.assertIn(NO_SPACE, err)
                self.assertEqual(contents(folder), before)
        self.ruche("backup", "verify", folder)
        # With room again it goes on where it was.
        subprocess.run(["mount", "-o", "remount,size=40M", self.full], check=True)
        self.ruche("backup", "web", folder)
        kinds = [b["kind"] for b in json.loads(self.ruche("backup", "ls", "--json", folder)[0])["backups"]]
        self.assertEqual(kinds, ["full", "incremental"])
        subprocess.run(["mount", "-o", f"remount,size={16 << 20}", self.full], check=True)
        before = contents(folder)
        self.fill()
        self.assertIn(NO_SPACE, self.ruche("backup", "prune", "--keep", "1", folder, status=125)[1])
        self.assertEqual(contents(folder), before)


if __name__ == "__main__":
    if "RUCHE_TEST_MOUNTS" not in os.environ:
        user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
        os.environ["RUCHE_TEST_MOUNTS"] = "1"
        os.execvp("unshare", ["unshare", "--mount", *user, sys.executable, os.path.abspath(__file__), *sys.argv[1:]])
    unittest.main(verbosity=2)
