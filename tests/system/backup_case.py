# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of backups with guests share: a small machine that writes numbered records by itself, and its backups' disks."""
import json
import os
import re
import subprocess

from tiny import Tiny

WRITES = "console=ttyS0 quiet panic=-1 writes"


class Backing(Tiny):
    def setUp(self):
        super().setUp()
        self.dir = self.path("backups")

    def told(self, name="web"):
        """The last record that the guest has told of since the machine was last started; 0: none."""
        try:
            with open(self.inspect(name)["folder"] + "/console", encoding="ascii", errors="replace") as f:
                return max(map(int, re.findall(r"ack (\d+) end", f.read())), default=0)
        except FileNotFoundError:
            return 0

    def start(self, name="web"):
        console = self.inspect(name)["folder"] + "/console"
        if os.path.exists(console):
            os.unlink(console)
        self.ruche("start", name)
        self.wait_for(lambda: self.told(name))

    def write_more(self, records=10, name="web"):
        wanted = self.told(name) + records
        self.wait_for(lambda: self.told(name) >= wanted)

    def stop(self, name="web"):
        self.ruche("stop", "--force", "--timeout", "0", name)

    def backup(self, *words, name="web", status=0):
        return self.ruche("backup", *words, name, self.dir, status=status)

    def manifest(self):
        return json.loads(self.ruche("backup", "ls", "--json", self.dir))

    def disk(self, backup, index=0):
        """The path of a disk's file."""
        names = {f["role"]: f["name"] for f in backup["files"]}
        return os.path.join(self.dir, names[f"disk{index}"])

    def check_backups(self):
        """Every file is as the manifest says, sound, and nothing else is there."""
        manifest = self.manifest()
        self.ruche("backup", "verify", self.dir)
        files = {f["name"]: f for b in manifest["backups"] for f in b["files"]}
        self.assertEqual(set(os.listdir(self.dir)), {"backup.json", *files})
        for name, entry in files.items():
            if entry["role"].startswith("disk"):
                done = subprocess.run(["qemu-img", "check", os.path.join(self.dir, name)], capture_output=True, text=True,
                                      check=False)
                self.assertEqual(done.returncode, 0, (name, done.stdout, done.stderr))
        return manifest["backups"]
