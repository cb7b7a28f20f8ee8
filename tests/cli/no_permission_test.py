#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What may not be read, written or executed, with the real ruche-vmm. Root may do everything, so where root runs the tests
`ruche` runs as nobody."""
import os
import shutil
import subprocess
import tempfile
import unittest

from harness import RECIPE, RUCHE, Real, table

NOBODY = 65534
RUN = "run --kernel {kernel} "
DENIED = "Permission denied"


class Unprivileged(Real):
    @classmethod
    def setUpClass(cls):
        """The programs may be where nobody cannot go."""
        super().setUpClass()
        cls.programs = tempfile.mkdtemp(prefix="ruche-test-")
        cls.addClassCleanup(shutil.rmtree, cls.programs)
        os.chmod(cls.programs, 0o755)
        for name in ("cli/ruche", "vmm/ruche-vmm"):
            path = os.path.join(cls.programs, name)
            os.mkdir(os.path.dirname(path), 0o755)
            shutil.copy(os.path.join(os.path.dirname(RUCHE), "..", name), path)

    def setUp(self):
        super().setUp()
        self.program = os.path.join(self.programs, "cli/ruche")
        self.write("recipes/small", RECIPE, 0o755)
        if os.getuid() == 0:
            self.how = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        self.hand_over()
        # Otherwise what could not be removed would be left behind.
        self.addCleanup(subprocess.run, ["chmod", "-R", "u+rwX", self.folder], check=True)

    def hand_over(self):
        """All files become the user's; what may be done with them is a matter of their modes."""
        for where, _, names in os.walk(self.folder):
            for path in (where, *(os.path.join(where, name) for name in names)):
                if os.getuid() == 0:
                    os.chown(path, NOBODY, NOBODY)

    def closed(self, path, mode):
        self.hand_over()
        os.chmod(path, mode)
        return path


@table(
    ("kernel", "run --kernel {off}", "off", 0o000, "{off}", DENIED),
    ("kernel in a closed folder", "run --kernel {folder}/k", "folder", 0o000, "{folder}/k", DENIED),
    ("initrd", RUN + "--initrd {noise}", "noise", 0o000, "{noise}", DENIED),
    ("module", RUN + "--module {noise}", "noise", 0o000, "{noise}", DENIED),
    ("raw disk", RUN + "--disk {raw}", "raw", 0o000, "{raw}", DENIED),
    ("qcow2 disk", RUN + "--disk {qcow2}", "qcow2", 0o000, "{qcow2}", DENIED),
    ("disk to be read", RUN + "--disk {raw},readonly", "raw", 0o000, "{raw}", DENIED),
    ("raw disk to be written", RUN + "--disk {raw}", "raw", 0o444, "{raw}", "for writing: " + DENIED),
    ("qcow2 disk to be written", RUN + "--disk {qcow2}", "qcow2", 0o444, "{qcow2}", "for writing: " + DENIED),
    ("backing file", RUN + "--disk {overlay}", "qcow2", 0o000, "{overlay}", "{qcow2}", DENIED),
    ("disk in a closed folder", RUN + "--disk {folder}/d", "folder", 0o000, "{folder}/d", DENIED),
    ("serial file", RUN + "--serial file:{noise}", "noise", 0o444, "{noise}", DENIED),
    ("serial file's folder", RUN + "--serial file:{folder}/log", "folder", 0o555, "{folder}/log", DENIED),
    ("serial socket's folder", RUN + "--serial unix:{folder}/s", "folder", 0o555, "{folder}/s", DENIED),
    ("control socket's folder", RUN + "--control {folder}/s", "folder", 0o555, "{folder}/s", DENIED),
)
class Paths(Unprivileged):
    def row(self, command, name, mode, *reason):
        self.words(command)
        self.closed(self.files[name], mode)
        super().row(command, 125, *reason)

    def test_readonly_is_enough(self):
        for disk in ("raw", "qcow2"):
            with self.subTest(disk=disk):
                words = self.words(f"run --kernel {{off}} --disk {{{disk}}},readonly")
                self.closed(self.files[disk], 0o444)
                self.assertEqual(self.ruche(*words), ("hello\n", ""))

    def test_low_port(self):
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as f:
            low = int(f.read()) > 1
        words = self.words("run --kernel {off} --net user,forward=tcp:127.0.0.1:1:22")
        self.hand_over()
        out, err = self.ruche(*words, status=125 if low else 0)
        if low:
            self.assertIn("127.0.0.1:1", self.one_line(err))
            self.assertIn(DENIED, err)
        else:
            self.assertEqual((out, err), ("hello\n", ""))


class Folders(Unprivileged):
    def folder_row(self, path, command, *reason, mode=0o555):
        with self.subTest(command=command):
            words = self.words(command)
            self.closed(self.path(path), mode)
            self.row(command, 125, *reason)
            os.chmod(self.path(path), 0o755)
            self.assertTrue(words)

    def test_runtime(self):
        os.mkdir(self.runtime + "/ruche", 0o700)
        self.folder_row("run/ruche", RUN + "--name m", self.runtime + "/ruche/m.sock", DENIED, mode=0o500)

    def test_data(self):
        os.mkdir(self.path("data"))
        for command in ("image build small", "image ls", "image rm small", "run small"):
            self.folder_row("data", command, self.path("data/ruche"), DENIED)

    def test_images(self):
        os.makedirs(self.path("data/ruche/images"))
        self.hand_over()
        self.ruche("image", "build", "small")
        images = self.path("data/ruche/images")
        for command in ("image build small", "image rm small"):
            self.folder_row("data/ruche/images", command, images if "build" in command else "'small'", DENIED)
        for name in ("overlays", "machines"):
            os.makedirs(self.path("data/ruche/" + name), exist_ok=True)
        self.folder_row("data/ruche/overlays", "run small", self.path("data/ruche/overlays"), DENIED)
        self.folder_row("data/ruche/machines", "run --keep small", self.path("data/ruche/machines"), DENIED)
        self.folder_row("data/ruche/images/small/disk.qcow2", "run small", images + "/small/disk.qcow2", DENIED, mode=0)
        self.folder_row("data/ruche/images/small/vmlinuz", "run small", images + "/small/vmlinuz", DENIED, mode=0)
        self.folder_row("data/ruche/images/small/image.json", "run small", images + "/small/image.json", DENIED, mode=0)
        self.ruche("image", "rm", "small")

    def test_machines(self):
        os.makedirs(self.path("data/ruche/machines"))
        kernel = self.files["kernel"]
        self.hand_over()
        self.ruche("create", "web", "--kernel", kernel)
        before = self.ruche("inspect", "web")
        uuid = next(name for name in os.listdir(self.path("data/ruche/machines")) if len(name) == 36)
        for path, mode, command, reason in (
                ("catalog.db", 0, "ls", "catalog.db"), ("catalog.db", 0, "create x --kernel k", "catalog.db"),
                ("catalog.db", 0, "start web", "catalog.db"), ("catalog.db", 0, "rm web", "catalog.db"),
                ("catalog.db", 0o400, "set web cpus=2", "catalog.db"), ("machines", 0o500, "create x --kernel k", DENIED),
                ("machines/" + uuid, 0o500, "start web", DENIED), ("machines/" + uuid, 0, "start web", DENIED)):
            with self.subTest(path=path, mode=oct(mode), command=command):
                path = self.closed(self.path("data/ruche/" + path), mode)
                self.assertIn(reason, self.one_line(self.ruche(*command.split(), status=125)[1]))
                os.chmod(path, 0o700)
                self.assertEqual(self.ruche("inspect", "web"), before)
        self.ruche("rm", "web")
        self.assertEqual(self.ruche("ls", "-a"), ("", ""))

    def test_programs(self):
        os.chmod(self.path("recipes/small"), 0o644)
        self.row("image build small", 125, self.path("recipes/small"), DENIED)
        self.env["RUCHE_VMM"] = self.files["noise"]
        self.hand_over()
        self.row(RUN, 125, self.files["noise"], DENIED)


if __name__ == "__main__":
    unittest.main(verbosity=2)
