#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user can get wrong, with the real ruche-vmm: each is one line that names the thing and the cause, the right exit
status (2: wrong usage, 125: Ruche failed), and nothing half-made left behind."""
import json
import os
import signal
import socket
import subprocess
import unittest

from harness import RECIPE, RUCHE, Files, Real, contents, table, without_note

RUN = "run --kernel {kernel} "


@table(
    ("no command", "", 2, "no command"),
    ("unknown command", "fly", 2, "'fly'"),
    ("nothing to run", "run", 2, "--kernel"),
    ("unknown option", RUN + "--bogus", 2, "'--bogus'"),
    ("unknown short option", RUN + "-q", 2, "'-q'"),
    ("option of another program", RUN + "-smp 2", 2, "'-smp'"),
    ("option without its value", "run --kernel", 2, "--kernel wants a value"),
    ("value for an option without", RUN + "--no-reboot=yes", 2, "--no-reboot=yes"),
    ("two images", "run one two", 2, "'one'", "'two'"),
    ("keeping the disk of no image", RUN + "--keep", 2, "--keep"),
    ("empty kernel", "run --kernel ''", 2, "--kernel"),
    ("empty image", "run ''", 2, "'' is no name"),
    ("path as image", "run ./folder", 2, "'./folder' is no name"),
    ("folder as image", "run {folder}", 2, "{folder}"),
    ("name with a slash", RUN + "--name ../x", 2, "'../x' is no name"),
    ("empty name", RUN + "--name ''", 2, "'' is no name"),
    ("unknown engine", RUN + "--engine warp", 2, "'warp'"),
    ("unknown processor", RUN + "--cpu v9", 2, "v9"),
    ("unknown device", RUN + "--device nosuch", 2, "'nosuch'"),
    ("unknown device's help", "run --device nosuch,help", 2, "'nosuch'"),
    ("unknown property", RUN + "--device virtio-rng,nosuch=1", 2, "nosuch"),
    ("property without value", RUN + "--device virtio-rng,id", 2, "'id'"),
    ("device without class", RUN + "--device ''", 2, "--device"),
    ("unknown serial line", RUN + "--serial bogus", 2, "bogus"),
    ("empty serial line", RUN + "--serial ''", 2, "--serial"),
    ("serial line to a nameless file", RUN + "--serial file:", 2, "file:"),
    ("empty control socket", RUN + "--control ''", 2, "--control"),
    ("unknown network", RUN + "--net bogus", 2, "bogus"),
    ("network and none", RUN + "--net none --net user", 2, "--net none"),
    ("forward of nothing", RUN + "--net user,forward=tcp:x", 2, "tcp:x"),
    ("forward by an unknown protocol", RUN + "--net user,forward=xdp:1:1", 2, "xdp:1:1"),
    ("forward of a port past the last", RUN + "--net user,forward=tcp:65536:1", 2, "65536"),
    ("disk without a file", RUN + "--disk ''", 2, "--disk"),
    ("disk of an unknown format", RUN + "--disk {raw},format=vmdk", 2, "format=vmdk"),
    ("disk with an unknown setting", RUN + "--disk {raw},size=1", 2, "size=1"),
    ("image command unknown", "image fly", 2, "'fly'"),
    ("image build of nothing", "image build", 2, "which image"),
    ("image build of a path", "image build ../x", 2, "'../x' is no name"),
    ("image rm of a path", "image rm ../x", 2, "'../x' is no name"),
    ("image inspect of a path", "image inspect a/b", 2, "'a/b' is no name"),
    ("image ls of something", "image ls x", 2, "'x'"),
)
class Usage(Real):
    pass


@table(
    *((f"memory {size or 'empty'}", RUN + f"--memory '{size}'", 2, "--memory", f"'{size}'") for size in (
        "0", "1K", "1023K", "1E", "-1", "", "1.5G", "1G4", "K", "x", "1025G", "16E", "99999999999T",
        "18446744073709551615", "99999999999999999999")),
    *((f"cpus {count or 'empty'}", RUN + f"--cpus '{count}'", 2, "--cpus", f"'{count}'") for count in (
        "0", "33", "-1", "", "x", "1.5", "two", "4294967297", "99999999999999999999")),
    *((f"image size {size or 'empty'}", f"image build debian --size '{size}'", 2, f"'{size}' is no size") for size in (
        "0", "-1", "", "x", "8X", "1E", "999999999T", "99999999999G")),
    *((f"image of {size}", f"image build debian --size '{size}'", 2, f"--size '{size}'", "from 1G to 16T") for size in (
        "1", "1073741823", "1023M", "17T", "99999T")),
)
class Sizes(Real):
    def test_more_memory_than_the_host_has(self):
        with open("/proc/meminfo", encoding="ascii") as f:
            total = sum(int(line.split()[1]) for line in f if line.startswith(("MemTotal:", "SwapTotal:")))
        self.assertLess(total >> 20, 1023)
        for more in (total + 1024, 1 << 30):
            self.row(RUN + f"--memory {more}K", 125, "--memory", f"{more >> 10} MiB are wanted, the host has {total >> 10} MiB")


@table(
    ("missing", "run --kernel {missing}", 125, "{missing}", "No such file"),
    ("below a file", "run --kernel {noise}/k", 125, "{noise}/k", "Not a directory"),
    ("folder", "run --kernel {folder}", 125, "{folder}", "a directory"),
    ("fifo", "run --kernel {fifo}", 125, "{fifo}", "not a regular file"),
    ("device", "run --kernel /dev/null", 125, "/dev/null", "not a regular file"),
    ("empty", "run --kernel {empty}", 125, "{empty}", "empty"),
    ("noise", "run --kernel {noise}", 125, "{noise}", "neither"),
    ("disk as kernel", "run --kernel {qcow2}", 125, "{qcow2}", "neither"),
    ("initrd missing", RUN + "--initrd {missing}", 125, "{missing}", "No such file"),
    ("initrd folder", RUN + "--initrd {folder}", 125, "{folder}", "a directory"),
    ("initrd empty", RUN + "--initrd {empty}", 125, "{empty}", "empty"),
    ("initrd larger than memory", "run --kernel {bzimage} --memory 18M --initrd {large}", 125, "initrd", "18 MiB"),
    ("module missing", RUN + "--module {missing}", 125, "{missing}", "No such file"),
    ("module folder", RUN + "--module {folder}", 125, "{folder}", "a directory"),
    ("module for Linux", "run --kernel {bzimage} --module {noise}", 125, "{bzimage}", "no modules"),
    ("kernel larger than memory", "run --kernel {bzimage} --memory 1M", 125, "{bzimage}"),
    ("command line too long", "run --kernel {bzimage} --cmdline " + "x" * 3000, 125, "{bzimage}", "command line"),
    ("image missing", "run nosuch", 125, "'nosuch'"),
)
class Kernels(Real):
    def setUp(self):
        super().setUp()
        self.files["large"] = self.files.path("large")
        with open(self.files["large"], "wb") as f:
            f.truncate(64 << 20)

    def test_cut_short(self):
        """The whole file boots; whatever is missing at its end is noticed."""
        for kind in ("bzimage", "pvh", "off"):
            path = self.files[kind]
            with open(path, "rb") as f:
                data = f.read()
            self.assertEqual(self.ruche("run", "--kernel", path), ("hello\n", ""))
            cuts = {1, 2, 16, 31, 32, 51, 52, 84, 116, 0x1F1, 0x202, 0x26C, 1023, 1024, 1025, 1100, len(data) // 2,
                    len(data) - 100, len(data) - 17, len(data) - 16, len(data) - 8, len(data) - 1}
            for cut in sorted(cut for cut in cuts if 0 < cut < len(data)):
                with self.subTest(kind=kind, bytes=cut, of=len(data)):
                    self.files["cut"] = self.files.write("cut", data[:cut])
                    self.row("run --kernel {cut}", 125, "{cut}")


@table(
    ("missing", RUN + "--disk {missing}", 125, "{missing}", "No such file"),
    ("folder", RUN + "--disk {folder}", 125, "{folder}", "a directory"),
    ("folder readonly", RUN + "--disk {folder},readonly", 125, "{folder}", "a directory"),
    ("fifo", RUN + "--disk {fifo}", 125, "{fifo}", "neither a file nor a block device"),
    ("device", RUN + "--disk /dev/null", 125, "/dev/null", "neither a file nor a block device"),
    ("empty", RUN + "--disk {empty}", 125, "{empty}", "empty"),
    ("not what it is said to be", RUN + "--disk {noise},format=qcow2", 125, "{noise}", "not a qcow2 image"),
    ("twice in one machine", RUN + "--disk {raw} --disk {raw}", 125, "{raw}", "in use"),
    ("twice in one machine, once readonly", RUN + "--disk {raw},readonly --disk {raw}", 125, "{raw}", "in use"),
    ("overlay and its base", RUN + "--disk {overlay} --disk {qcow2}", 125, "{qcow2}", "in use"),
    ("backing file missing", RUN + "--disk {orphan}", 125, "{orphan}", "gone", "No such file"),
    ("device without a file", RUN + "--device virtio-blk", 125, "virtio-blk", "file="),
    ("device with a missing file", RUN + "--device virtio-blk,file={missing}", 125, "{missing}", "No such file"),
)
class Disks(Real):
    def setUp(self):
        super().setUp()
        self.files["orphan"] = self.files.path("orphan")
        self.files.qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", "gone", "-F", "raw", self.files["orphan"], "1M")

    def test_cut_short(self):
        """Up to where the last cluster begins; the file's end may lie within that."""
        with open(self.files["qcow2"], "rb") as f:
            data = f.read()
        ends = range(0, len(data), 65536)
        cuts = {1, 4, 71, 72, 103, 104, 111, 112, 65535, *ends, *(end + 1 for end in ends[:6]), *(end - 1 for end in ends)}
        for cut in sorted(cut for cut in cuts if 0 <= cut <= ends[-1]):
            with self.subTest(bytes=cut, of=len(data)):
                self.files["cut"] = self.files.write("cut", data[:cut])
                self.row(RUN + "--disk {cut},format=qcow2", 125, "{cut}")
        self.assertEqual(self.ruche(*self.words("run --kernel {off} --disk {qcow2},format=qcow2")), ("hello\n", ""))

    def test_damaged_header(self):
        with open(self.files["qcow2"], "rb") as f:
            data = f.read()
        for at, damage in ((4, b"\0\0\0\x09"), (20, b"\0\0\0\x3f"), (32, b"\0\0\0\1"), (36, b"\xff\xff\xff\xff"),
                           (40, b"\0\1\0\0"), (48, b"\xff\0\0\0"), (79, b"\x80")):
            with self.subTest(at=at):
                self.files["bad"] = self.files.write("bad", data[:at] + damage + data[at + len(damage):])
                self.row(RUN + "--disk {bad}", 125, "{bad}")


class Sharing(Real):
    """Disks of a machine that runs are the business of another one."""

    def others(self, *rows):
        for command, allowed in rows:
            with self.subTest(command=command):
                command = command.replace("RUN", "run --kernel {off}")
                if allowed:
                    self.assertEqual(self.ruche(*self.words(command)), ("hello\n", ""))
                else:
                    _, err = self.ruche(*self.words(command), status=125)
                    self.assertIn("in use by another program", self.one_line(err))

    def test_written(self):
        for disk in ("raw", "qcow2"):
            p = self.start(RUN + f"--disk {{{disk}}}")
            self.assertTrue(self.files["off"])
            before = contents(self.files.folder)
            self.others((f"RUN --disk {{{disk}}}", False), (f"RUN --disk {{{disk}}},readonly", False))
            self.assertEqual(contents(self.files.folder), before)
            self.assertEqual(self.stop(p), 143)
            self.others((f"RUN --disk {{{disk}}}", True))

    def test_read(self):
        for disk in ("raw", "qcow2"):
            self.start(RUN + f"--disk {{{disk}}},readonly")
            self.others((f"RUN --disk {{{disk}}},readonly", True), (f"RUN --disk {{{disk}}}", False))

    def test_base_of_an_overlay(self):
        self.start(RUN + "--disk {overlay}")
        self.files.qemu_img("create", "-q", "-f", "qcow2", "-b", self.files["qcow2"], "-F", "qcow2", self.files.path("2nd"))
        self.files["second"] = self.files.path("2nd")
        self.others(("RUN --disk {second}", True), ("RUN --disk {qcow2},readonly", True), ("RUN --disk {qcow2}", False))

    def test_lock_ends_with_a_killed_machine(self):
        p = self.start(RUN + "--disk {raw}")
        for pid in set(self.machines(p)):
            os.kill(pid, signal.SIGKILL)
        self.assertEqual(p.wait(30), 125)
        self.others(("RUN --disk {raw}", True))

    def machines(self, p):
        with open(f"/proc/{p.pid}/task/{p.pid}/children", encoding="ascii") as f:
            return [int(pid) for pid in f.read().split()]


@table(
    ("busy tcp port", RUN + "--net user,forward=tcp:127.0.0.1:{tcp}:22", 125, "{tcp}", "in use"),
    ("busy udp port", RUN + "--net user,forward=udp:127.0.0.1:{udp}:53", 125, "{udp}", "in use"),
    ("one port twice", RUN + "--net user,forward=tcp:127.0.0.1:{free}:22,forward=tcp:127.0.0.1:{free}:23", 125, "{free}"),
    ("address of another host", RUN + "--net user,forward=tcp:192.0.2.1:4000:22", 125, "192.0.2.1:4000",
     "Cannot assign requested address"),
    ("serial file in no folder", RUN + "--serial file:/nonexistent/log", 125, "/nonexistent/log", "No such file"),
    ("serial file is a folder", RUN + "--serial file:{folder}", 125, "{folder}", "Is a directory"),
    ("serial socket in no folder", RUN + "--serial unix:/nonexistent/s", 125, "/nonexistent/s", "No such file"),
    ("serial socket is a file", RUN + "--serial unix:{noise}", 125, "{noise}", "in use"),
    ("serial socket's path too long", RUN + "--serial unix:/tmp/{x200}", 125, "{x200}"),
    ("control socket in no folder", RUN + "--control /nonexistent/s", 125, "/nonexistent/s", "No such file"),
    ("control socket is a file", RUN + "--control {noise}", 125, "{noise}", "exists"),
    ("control socket is a folder", RUN + "--control {folder}", 125, "{folder}", "exists"),
    ("control socket's path too long", RUN + "--control /tmp/{x200}", 125, "{x200}"),
)
class Places(Real):
    def setUp(self):
        super().setUp()
        for name, kind in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)):
            s = socket.socket(socket.AF_INET, kind)
            self.addCleanup(s.close)
            s.bind(("127.0.0.1", 0))
            if name == "tcp":
                s.listen()
            self.files[name] = str(s.getsockname()[1])
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.files["free"] = str(s.getsockname()[1])

    def test_one_name_for_two_machines(self):
        p = self.start(RUN + "--name twin")
        before = contents(self.folder)
        _, err = self.ruche(*self.words(RUN + "--name twin"), status=125)
        self.assertIn("twin", self.one_line(err))
        self.assertEqual(contents(self.folder), before)
        self.assertEqual(self.stop(p, signal.SIGINT), 130)

    def test_stale_sockets_make_way(self):
        for option in ("--control ", "--serial unix:"):
            path = self.path("stale")
            with socket.socket(socket.AF_UNIX) as s:
                s.bind(path)
            self.ruche(*self.words("run --kernel {off} " + option + path), status=0)
            self.assertFalse(os.path.exists(path))


@table(
    ("disk missing", "disk.qcow2", "rm", "No such file"),
    ("kernel missing", "vmlinuz", "rm", "No such file"),
    ("initrd missing", "initrd", "rm", "No such file"),
    ("disk is a folder", "disk.qcow2", "mkdir", "directory"),
    ("kernel is a folder", "vmlinuz", "mkdir", "directory"),
    ("initrd is a folder", "initrd", "mkdir", "directory"),
    ("disk cut short", "disk.qcow2", "truncate -s 100000", "truncated"),
    ("disk empty", "disk.qcow2", "truncate -s 0", "no qcow2"),
    ("kernel cut short", "vmlinuz", "truncate -s 1000", "cannot boot"),
    ("initrd empty", "initrd", "truncate -s 0", "empty"),
    ("description missing", "image.json", "rm", "no image"),
    ("description cut short", "image.json", "truncate -s 100", "image.json"),
)
class Images(Real):
    """An image in the catalogue whose parts are not what they were."""

    def setUp(self):
        super().setUp()
        self.write("recipes/small", RECIPE + f"cp {self.files['bzimage']} vmlinuz\n", 0o755)
        self.ruche("image", "build", "small")
        self.assertEqual(self.ruche("run", "small"), ("hello\n", ""))

    def row(self, part, how, reason):
        path = self.path("data/ruche/images/small/" + part)
        if how == "mkdir":
            os.unlink(path)
        subprocess.run([*how.split(), path], check=True)
        for option in ([], ["--keep"]):
            before = contents(self.folder)
            _, err = self.ruche("run", *option, "small", status=125)
            self.assertIn("small", self.one_line(err))
            self.assertIn(reason, err)
            self.unchanged(before)

    def test_wrong_usage(self):
        """Only the machine notices, when a disk has been made for it already."""
        for option in ("", "--keep "):
            Real.row(self, "run " + option + "small --memory 0", 2, "--memory")

    def test_kept_disk_survives(self):
        self.ruche("run", "--keep", "small")
        Real.row(self, "run --keep small --memory 0", 2, "--memory")


class Engines(Real):
    """Which engines work here is the host's affair; what is said of one that does not is ours."""

    def setUp(self):
        super().setUp()
        out, _ = self.ruche("doctor", "--json")
        findings = [check["finding"] for check in json.loads(out)["checks"] if check["name"] == "engine"]
        self.reason = next((f for f in findings if f.startswith("kvm does not work: ")), "")[len("kvm does not work: "):]

    def test_auto_says_why_not_kvm(self):
        """In one line, when the machine has started; a machine that does not start has another reason to give."""
        done = subprocess.run([RUCHE, *self.words("run --engine auto --kernel {off}")], env=self.env, capture_output=True,
                              text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
        note = f"ruche-vmm: warning: engine kvm is not used: {self.reason}\n" if self.reason else ""
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "hello\n", note))
        self.row("run --engine auto --kernel {missing}", 125, "{missing}", "No such file")
        self.row("run --engine auto --kernel {kernel} --memory 0", 2, "--memory")
        self.row("run --engine auto --kernel {kernel} --disk {folder}", 125, "{folder}", "a directory")
        self.row("run --engine auto --kernel {kernel} --control {noise}", 125, "{noise}", "exists")

    def test_kvm_by_name(self):
        if self.reason:
            self.row("run --engine kvm --kernel {kernel}", 125, f"engine kvm does not work here: {self.reason}; --engine auto")
        else:
            self.assertEqual(self.ruche(*self.words("run --engine kvm --kernel {off}")), ("hello\n", ""))


class Programs(Real):
    def test_no_machine_program(self):
        for path, why in ((self.files["missing"], "No such file"), (self.files["noise"], "ermission denied"),
                          (self.files["folder"], "ermission denied")):
            with self.subTest(path=path):
                self.env["RUCHE_VMM"] = path
                self.row(RUN, 125, path, why)

    def test_relative_names(self):
        """Files are looked for where the user is."""
        files = Files(self.folder)
        done = subprocess.run([RUCHE, "run", "--kernel", os.path.basename(files["off"])], cwd=self.folder, env=self.env,
                              capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
        self.assertEqual((done.returncode, done.stdout, without_note(done.stderr)), (0, "hello\n", ""))


if __name__ == "__main__":
    unittest.main(verbosity=2)
