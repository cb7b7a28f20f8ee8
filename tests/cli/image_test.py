#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`ruche image` with recipes of the test's own, and what `ruche run IMAGE` makes of an image."""
import hashlib
import json
import os
import signal
import subprocess
import time
import unittest

from harness import RECIPE as GOOD
from harness import RUCHE, Case, Terminal

class Images(Case):
    def setUp(self):
        super().setUp()
        self.images = self.path("data/ruche/images")

    def recipe(self, text, name="small"):
        return self.write("recipes/" + name, text, 0o755)

    def build(self, *options, status=0, **more):
        return self.ruche("image", "build", "small", *options, status=status, **more)

    def left(self):
        return sorted(os.listdir(self.images)) if os.path.exists(self.images) else []

    def inspect(self, name="small"):
        return json.loads(self.ruche("image", "inspect", name, "--json")[0])


class Build(Images):
    def test_build_list_inspect_remove(self):
        recipe = self.recipe(GOOD)
        self.assertEqual(self.ruche("image", "ls")[0], "")
        self.assertEqual(json.loads(self.ruche("image", "ls", "--json")[0]), [])
        _, err = self.build("--size", "3G")
        self.assertEqual(err.splitlines()[:2], ["image small: 1/2 one", "image small: 2/2 two"])
        self.assertEqual(self.left(), ["small"])
        self.assertEqual(sorted(os.listdir(self.images + "/small")), ["disk.qcow2", "image.json", "initrd", "vmlinuz"])
        image = self.inspect()
        self.assertEqual((image["name"], image["description"]), ("small", "a test"))
        self.assertEqual(image["cmdline"], "root=/dev/vda console=ttyS0")
        self.assertEqual(image["disk_size"], 3 << 30)
        # A bare number is bytes, whatever a recipe's programs make of one.
        self.recipe(GOOD + 'echo "$RUCHE_SIZE" >description\n')
        self.build("--force", "--size", "5368709120")
        self.assertEqual((self.inspect()["disk_size"], self.inspect()["description"]), (5 << 30, "5120M"))
        recipe = self.recipe(GOOD)
        self.build("--force", "--size", "3G")
        image = self.inspect()
        self.assertRegex(image["created"], r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")
        for key in ("disk", "kernel", "initrd"):
            with open(image[key], "rb") as f:
                self.assertEqual(image[key + "_sha256"], hashlib.sha256(f.read()).hexdigest())
        with open(recipe, "rb") as f:
            self.assertEqual(image["recipe_sha256"], hashlib.sha256(f.read()).hexdigest())
        self.assertEqual(json.loads(self.ruche("image", "ls", "--json")[0]), [image])
        self.assertRegex(self.ruche("image", "ls")[0], r"(?m)^small .*3\.0 GiB .*a test$")
        self.assertIn(image["disk"], self.ruche("image", "inspect", "small")[0])
        self.ruche("image", "rm", "small")
        self.assertEqual(self.left(), [])
        self.one_line(self.ruche("image", "rm", "small", status=125)[1])
        self.one_line(self.ruche("image", "inspect", "small", status=125)[1])

    def test_rebuild_replaces(self):
        self.recipe(GOOD)
        self.build(KIND="1")
        first = self.inspect()
        self.ruche("image", "inspect", "--current", "small")
        self.recipe(GOOD + "# changed\n")
        self.one_line(self.ruche("image", "inspect", "--current", "small", status=125)[1])
        self.build(KIND="2")
        self.assertNotEqual(self.inspect()["kernel_sha256"], first["kernel_sha256"])
        self.assertEqual(self.left(), ["small"])

    def test_failing_recipe_leaves_the_old_image(self):
        self.recipe(GOOD)
        self.build()
        first = self.inspect()
        self.recipe("#!/bin/sh\necho 'steps 1' >&3\necho 'step trying' >&3\necho 'E: no such mirror'\nexit 1\n")
        _, err = self.build(status=125)
        self.assertIn("failed at step 1 (trying)", err)
        self.assertIn("E: no such mirror", err)
        self.assertEqual(self.left(), ["small"])
        self.assertEqual(self.inspect(), first)

    def test_incomplete_recipes(self):
        for name in ("disk.qcow2", "vmlinuz", "initrd", "cmdline", "description"):
            self.recipe(GOOD + f"rm {name}\n")
            self.one_line(self.build(status=125)[1].splitlines(keepends=True)[-1])
            self.assertEqual(self.left(), [])
        self.recipe(GOOD + "echo no disk >disk.qcow2\n")
        self.assertIn("no qcow2", self.build(status=125)[1])
        self.assertEqual(self.left(), [])

    def test_no_recipe(self):
        self.one_line(self.ruche("image", "build", "other", status=125)[1])
        self.one_line(self.ruche("image", "build", "../x", status=2)[1])
        self.assertEqual(self.left(), [])

    def start_endless(self):
        self.recipe("#!/bin/sh\necho 'steps 1' >&3\necho 'step waiting' >&3\n"
                    f"sh -c 'echo $$ >{self.path('child')}; exec sleep 1000'\n")
        p = subprocess.Popen([RUCHE, "image", "build", "small"], env=self.env, stderr=subprocess.PIPE, text=True)
        self.addCleanup(p.stderr.close)
        deadline = time.monotonic() + 10
        while not (os.path.exists(self.path("child")) and os.path.getsize(self.path("child"))):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        with open(self.path("child"), encoding="ascii") as f:
            return p, int(f.read())

    def gone(self, pid):
        deadline = time.monotonic() + 10
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
            with open(f"/proc/{pid}/stat", encoding="ascii") as f:
                if f.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
            time.sleep(0.02)
        return not os.path.exists(f"/proc/{pid}")

    def test_interruption_leaves_nothing(self):
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            p, child = self.start_endless()
            p.send_signal(number)
            self.assertEqual(p.wait(10), status)
            self.assertTrue(self.gone(child))
            self.assertEqual(self.left(), [])
            os.unlink(self.path("child"))

    def test_what_a_killed_build_left_is_swept(self):
        p, child = self.start_endless()
        self.assertEqual(len(self.left()), 1)
        # While it runs, another build leaves its draft alone.
        self.recipe(GOOD)
        self.build()
        self.assertEqual(len(self.left()), 2)
        p.kill()
        p.wait()
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.build()
        self.assertEqual(self.left(), ["small"])

    def test_damaged_image(self):
        self.recipe(GOOD)
        self.build()
        for text in ("", "{", "[]", "{}", '{"disk": "../x"}'):
            self.write("data/ruche/images/small/image.json", text)
            self.one_line(self.ruche("image", "inspect", "small", status=125)[1])
            out, err = self.ruche("image", "ls")
            self.assertEqual(out, "")
            self.assertIn("left out", err)

    def test_progress_bar_on_a_terminal(self):
        self.recipe(GOOD)
        terminal = Terminal(["image", "build", "small"], self.env)
        self.addCleanup(terminal.close)
        terminal.expect("2/2 two")
        terminal.expect("done in")
        self.assertEqual(terminal.wait(), 0)

    def test_unusable_data_folder(self):
        self.env["XDG_DATA_HOME"] = "/proc/nonexistent"
        self.one_line(self.ruche("image", "ls", status=125)[1])


class Convert(Images):
    """Disks from and for other programs, with qemu-img as the judge."""

    def setUp(self):
        super().setUp()
        self.raw = self.path("raw")
        with open(self.raw, "wb") as f:
            f.write(bytes(range(256)) * 4096)
            f.truncate(8 << 20)
        self.kernel = self.write("kernel", "kernel, of 27 bytes length\n")
        self.initrd = self.write("initrd", "initrd\n")

    def qemu_img(self, *words):
        return subprocess.run(["qemu-img", *words], check=True, stdout=subprocess.PIPE, text=True).stdout

    def bring(self, path, *more, status=0):
        return self.ruche("image", "import", "small", path, "--kernel", self.kernel, "--initrd", self.initrd, *more, status=status)

    def test_every_format_and_back(self):
        for form in ("raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx"):
            with self.subTest(form=form):
                disk = self.path("disk." + form)
                self.qemu_img("convert", "-f", "raw", "-O", form, self.raw, disk)
                self.bring(disk, *(["--format", form] if form in ("raw", "vpc") else []), "--cmdline", "a b")
                image = self.inspect()
                self.assertEqual((image["cmdline"], image["description"]), ("a b", "imported from " + disk))
                with open(image["disk"], "rb") as f:
                    self.assertEqual(image["disk_sha256"], hashlib.sha256(f.read()).hexdigest())
                with open(image["kernel"], "rb") as f:
                    self.assertEqual(f.read(), b"kernel, of 27 bytes length\n")
                self.qemu_img("compare", self.raw, image["disk"])
                out = self.path("nbd:out")  # a file, and nothing that qemu-img takes for an address
                self.how["cwd"] = self.folder
                self.ruche("image", "export", "small", "nbd:out", "--format", form)
                self.assertEqual(json.loads(self.qemu_img("info", "--output=json", "-f", form, out))["format"], form)
                self.qemu_img("compare", "-F", form, self.raw, out)
        self.assertEqual(self.left(), ["small"])

    def test_refusals(self):
        base, top = self.path("base"), self.path("top")
        self.qemu_img("create", "-q", "-f", "qcow2", base, "1M")
        self.qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
        for path, words, reason in ((top, (), base), (self.path("none"), (), "No such file"),
                                    (self.raw, ("--format", "qcow2"), "not in qcow2 format"),
                                    (base, ("--kernel", self.path("none")), self.path("none")),
                                    (base, ("--initrd", self.folder), "directory")):
            with self.subTest(path=path, words=words):
                self.assertIn(reason, self.one_line(self.bring(path, *words, status=125)[1]))
                self.assertEqual(self.left(), [])
        for words in (("import", "small", base), ("import",), ("export", "small"), ("export", "small", "x", "--format", "zip"),
                      ("export", "../x", "y")):
            self.one_line(self.ruche("image", *words, status=2)[1])
        self.one_line(self.ruche("image", "export", "small", self.path("x"), status=125)[1])
        self.bring(base)
        for target in ("/dev/full/x", self.path("none/x"), self.folder):
            self.one_line(self.ruche("image", "export", "small", target, status=125)[1])
        self.assertFalse(os.path.exists(self.folder + ".part"))


class Run(Images):
    def setUp(self):
        super().setUp()
        self.recipe(GOOD)
        self.build()
        self.image = self.inspect()

    def option(self, name):
        words = self.log()[-1].split(" --")
        return next(word.split(" ", 1)[1] for word in words if word.startswith(name + " "))

    def test_image_becomes_options(self):
        self.ruche("run", "small", stdin="exit 0\n")
        self.assertEqual(self.option("kernel"), self.image["kernel"])
        self.assertEqual(self.option("initrd"), self.image["initrd"])
        self.assertEqual(self.option("cmdline"), self.image["cmdline"])
        self.assertEqual(self.option("net"), "user")
        self.assertEqual(self.option("memory"), "1G")
        self.assertRegex(self.option("disk"), r"/overlays/\d+\.qcow2,format=qcow2\Z")
        self.assertEqual(os.listdir(self.path("data/ruche/overlays")), [])

    def test_own_options_win(self):
        self.ruche("run", "small", "--net", "none", "--memory", "2G", "--cmdline", "x", "--kernel", "k",
                   stdin="exit 0\n")
        line = " ".join(self.log())
        self.assertIn("--net none", line)
        self.assertNotIn("--net user", line)
        self.assertNotIn("--memory 1G", line)
        self.assertNotIn("--initrd", line)
        self.assertIn("--cmdline x", line)

    def test_the_images_disk_is_the_first(self):
        self.ruche("run", "--disk", "other.raw", "small", "--disk=third.raw", stdin="exit 0\n")
        disks = [word.split(" ")[1] for word in self.log()[-1].split(" --") if word.startswith("disk ")]
        self.assertEqual(len(disks), 3)
        self.assertIn("/overlays/", disks[0])
        self.assertEqual(disks[1:], ["other.raw", "third.raw"])

    def test_terminal_size_reaches_the_guest(self):
        for size, words in (((0, 0), ""), ((41, 97), " ruche.rows=41 ruche.cols=97 ruche.term=xterm")):
            terminal = Terminal(["run", "small"], self.env, size)
            self.addCleanup(terminal.close)
            terminal.expect("hello")
            terminal.send(b"exit 0\r")
            self.assertEqual(terminal.wait(), 0)
            self.assertEqual(next(line for line in reversed(self.log()) if "--cmdline" in line).split(" --cmdline ")[1]
                             .split(" --")[0], self.image["cmdline"] + words)

    def test_failed_start_leaves_no_overlay(self):
        for fake in ("refuse", "crash"):
            self.ruche("run", "small", status=125, FAKE=fake)
            self.assertEqual(os.listdir(self.path("data/ruche/overlays")), [])

    def test_stale_overlays_are_swept(self):
        p = subprocess.Popen(["true"])
        p.wait()
        stale = self.write(f"data/ruche/overlays/{p.pid}.qcow2", "x")
        other = self.write("data/ruche/overlays/notes.txt", "x")
        self.ruche("run", "small", stdin="exit 0\n")
        self.assertFalse(os.path.exists(stale))
        self.assertTrue(os.path.exists(other))

    def test_kept_disk(self):
        self.ruche("run", "--keep", "--name", "pet", "small", stdin="exit 0\n")
        disk = self.path("data/ruche/machines/pet.qcow2")
        self.assertEqual(self.option("disk"), disk + ",format=qcow2")
        subprocess.run(["qemu-img", "check", "-q", disk], check=True)
        info = json.loads(subprocess.run(["qemu-img", "info", "--output=json", disk], check=True,
                                         stdout=subprocess.PIPE).stdout)
        self.assertEqual(info["virtual-size"], 8 << 30)
        self.assertEqual(info["full-backing-filename"], self.image["disk"])
        self.assertEqual(info["backing-filename-format"], "qcow2")
        before = os.stat(disk).st_ino
        self.ruche("run", "--keep", "--name", "pet", "small", stdin="exit 0\n")
        self.assertEqual(os.stat(disk).st_ino, before)
        self.assertIn("pet", self.one_line(self.build(status=125)[1]))
        self.assertIn("pet", self.one_line(self.ruche("image", "rm", "small", status=125)[1]))
        self.build("--force", "--size", "9G")
        self.assertIn("earlier build", self.one_line(self.ruche("run", "--keep", "--name", "pet", "small",
                                                                status=125)[1]))


unittest.main(verbosity=2)
