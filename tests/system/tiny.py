# SPDX-License-Identifier: GPL-2.0-or-later
"""Named machines of a small image: busybox, with the kernel of the image `debian` and a disk of 64 MiB that it does not mount."""
import glob
import hashlib
import json
import os
import subprocess
import time

import initramfs
from machine import ENGINE, PATIENCE, RUCHE, Case, image, sha256

# In the order in which they need each other.
DRIVERS = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"]

# Writes numbered records straight to the disk, each durable before it is told of.
WRITER = """
writer() {
    while [ ! -e /stop ]; do
        n=$((n + 1))
        { echo $n; head -c 512 /dev/zero; } | head -c 512 | dd of=/dev/vda bs=512 seek=$n conv=notrunc,fsync 2>/dev/null
        echo "ack $n end"
    done
}
# Whether the records up to $1 are there, and none from there to $2.
records() {
    [ "$(dd if=/dev/vda bs=512 skip=1 count=$1 2>/dev/null | tr -d '\\0')" = "$(seq $1)" ] || echo "LOST"
    [ -z "$(dd if=/dev/vda bs=512 skip=$(($1 + 1)) count=$(($2 - $1)) 2>/dev/null | tr -d '\\0')" ] || echo "TOO MUCH"
    echo "records looked at"
}
n=0
"""

INIT = "".join(f"insmod /{name}.ko\n" for name in DRIVERS) + f"""
cat > /shell.sh <<'END'
{WRITER}
END
export ENV=/shell.sh
# By itself it goes on after the records that are there.
if grep -q writes /proc/cmdline; then
    . /shell.sh
    n=$(dd if=/dev/vda bs=512 skip=1 count=20000 2>/dev/null | tr -d '\\0' | wc -l)
    writer
fi
""" + initramfs.SHELL


def drivers(initrd):
    """Those that a virtio disk needs, out of an initial RAM disk in the form that initramfs.py writes: names and contents."""
    with open(initrd, "rb") as f:
        data = f.read()
    found, at = {}, 0
    while data[at:at + 6] == b"070701":
        size, name_size = (int(data[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in (6, 11))
        name = data[at + 110:at + 109 + name_size].decode()
        begin = (at + 110 + name_size + 3) & ~3
        found[os.path.basename(name)] = data[begin:begin + size]
        at = (begin + size + 3) & ~3
    return [(name + ".ko", found[name + ".ko"]) for name in DRIVERS]


class Tiny(Case):
    """With a data folder that has the image `tiny`."""

    def setUp(self):
        super().setUp()
        folder = self.path("data/ruche/images/tiny")
        os.makedirs(folder)
        os.symlink(image()["kernel"], folder + "/vmlinuz")
        initramfs.make(folder + "/initrd", INIT, drivers(image()["initrd"]))
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", folder + "/disk.qcow2", "64M"], check=True)
        sums = {part + "_sha256": sha256(f"{folder}/{name}")
                for part, name in (("disk", "disk.qcow2"), ("kernel", "vmlinuz"), ("initrd", "initrd"))}
        with open(folder + "/image.json", "w", encoding="utf-8") as f:
            json.dump({"name": "tiny", "description": "a test", "created": "2026-01-31T12:00:00Z", "disk": "disk.qcow2",
                       "kernel": "vmlinuz", "initrd": "initrd", "cmdline": "console=ttyS0 quiet panic=-1",
                       "recipe_sha256": "0" * 64, "disk_size": 64 << 20, **sums}, f)
        os.mkdir(self.path("run"), 0o700)
        self.env = dict(os.environ, XDG_DATA_HOME=self.path("data"), XDG_RUNTIME_DIR=self.path("run"))
        self.addCleanup(self.ruche, "stop", "--all", "--force", "--timeout", "0")

    def ruche(self, *words, status=0):
        """Gives what it printed; of a failure the one line that says why."""
        done = subprocess.run([RUCHE, *words], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=120 * PATIENCE, check=False)
        self.assertEqual(done.returncode, status, (words, done.stdout, done.stderr))
        if status:
            self.assertRegex(done.stderr, r"\Aruche: [^\n]+\n\Z")
        return done.stderr if status else done.stdout

    def create(self, name, *options):
        self.ruche("create", name, *(["--engine", ENGINE] if ENGINE else []), "--memory", "96M", "--net", "none", *options,
                   "tiny")

    def inspect(self, name):
        return json.loads(self.ruche("inspect", "--json", name))[0]

    def snapshots(self, name):
        return {s["name"]: s for s in json.loads(self.ruche("snapshot", "ls", "--json", name))}

    def layers(self, name):
        return sorted(glob.glob(self.inspect(name)["folder"] + "/disk*.qcow2"))

    def wait_for(self, condition):
        deadline = time.monotonic() + 120 * PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)

    def read_records(self, disk):
        """The number of records on a disk that nobody writes to, which have no gap and nothing behind them, and a digest."""
        raw = self.path("raw")
        subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", disk, raw], check=True)
        with open(raw, "rb") as f:
            data = f.read()
        n = 0
        while data[(n + 1) * 512:(n + 2) * 512].rstrip(b"\0") == b"%d\n" % (n + 1):
            n += 1
        self.assertEqual(data[(n + 1) * 512:].count(0), len(data) - (n + 1) * 512)
        return n, hashlib.sha256(data).hexdigest()

    def check_layers(self, name):
        for layer in self.layers(name):
            done = subprocess.run(["qemu-img", "check", "-U", layer], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, (layer, done.stdout, done.stderr))
