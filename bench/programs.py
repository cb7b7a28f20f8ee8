# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of the benchmark that runs real programs, in a Debian guest and natively: the same files of the same Debian, on
the same inputs.

The guest's disk is made once by the recipe of the image `debian`, with the programs' packages added. Natively the programs
run in a copy of its files, in namespaces of their own. What a run writes is thrown away.
"""
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tarfile

import sides

TOP = os.path.join(sides.HERE, "..")
FILES = os.path.join(sides.HERE, "programs")
RECIPE = os.path.join(TOP, "src/cli/recipes/debian")
GENERATE_C = os.path.join(TOP, "tests/system/programs/generate_c.py")
PACKAGES = "xz-utils,zstd,openssl,python3,perl,sqlite3,gcc,libc6-dev"
NAMES = ("gzip", "gunzip", "xz", "unxz", "zstd", "sha256sum", "openssl-aes-gcm", "openssl-chacha20", "openssl-sha256",
         "openssl-rsa2048", "python3", "perl", "sqlite3", "gcc", "shell-forks", "apt-install")
TEXT_SIZE = 12 << 20
C_FUNCTIONS = 60
DEB_FILES = 150
TIMEOUT = 3600

# As the first process of the guest: the inputs are on the second disk, and the work is done in memory.
GUEST_INIT = ("mount -t proc proc /proc; mount -t tmpfs tmpfs /tmp; tar -x -C /tmp -f /dev/vdb; bash /tmp/run.sh {names}; "
              "sync; echo o >/proc/sysrq-trigger; sleep 60")

# In a mount namespace: $1 is the root, $2 the inputs. What the programs write to the root stays in memory.
NATIVE_INIT = """set -eu
root=$1 inputs=$2
shift 2
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o "lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
mount -t proc proc /mnt/root/proc
mount --rbind /dev /mnt/root/dev
mount -t tmpfs tmpfs /mnt/root/tmp
tar -x -C /mnt/root/tmp -f "$inputs"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot /mnt/root bash /tmp/run.sh "$@"
"""


def run_quietly(command, log, **more):
    """Runs a command that says nothing useful when all goes well."""
    with open(log, "ab") as out:
        if subprocess.run(command, stdout=out, stderr=out, check=False, **more).returncode:
            raise sides.Failed(f"'{' '.join(command[:3])} ...' failed; see {log}")


def make_image(folder):
    """The guest's disk, kernel and initial RAM disk, and a copy of the disk's files in `root`."""
    os.makedirs(folder)
    log = os.path.join(folder, "log")
    environment = dict(os.environ, RUCHE_SIZE="4G", RUCHE_MIRROR="", RUCHE_PACKAGES=PACKAGES)
    run_quietly(["sh", "-c", 'exec sh "$0" 3>steps', RECIPE], log, cwd=folder, env=environment)
    run_quietly(["qemu-img", "convert", "-O", "raw", "disk.qcow2", "disk.raw"], log, cwd=folder)
    os.mkdir(os.path.join(folder, "root"))
    run_quietly(["debugfs", "-R", "rdump / root", "disk.raw"], log, cwd=folder,
                env=dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin"))
    os.remove(os.path.join(folder, "disk.raw"))


def image(cache):
    """The folder of the guest's files, made if there is none for the recipe as it is."""
    with open(RECIPE, "rb") as f:
        key = hashlib.sha256(f.read() + PACKAGES.encode()).hexdigest()[:12]
    folder = os.path.join(cache, "programs-" + key)
    if not os.path.isdir(folder):
        part = folder + ".part"
        shutil.rmtree(part, ignore_errors=True)
        make_image(part)
        os.rename(part, folder)
    return folder


def make_text(path):
    """Words with the frequencies of a language, in lines."""
    chance = random.Random(1)
    vocabulary = ["".join(chance.choices("etaoinshrdlucmfwypvbgk", k=chance.randint(2, 9))) for _ in range(4000)]
    vocabulary[:3] = ["the", "and", "of"]
    weights = [1 / (i + 2) for i in range(len(vocabulary))]
    with open(path, "w", encoding="ascii") as f:
        while f.tell() < TEXT_SIZE:
            words = chance.choices(vocabulary, weights, k=6000)
            f.write("".join(" ".join(words[i:i + 12]) + "\n" for i in range(0, len(words), 12)))
        f.truncate(TEXT_SIZE)


def make_debs(folder, log):
    """Three packages of many small files, one of which needs the others."""
    chance = random.Random(2)
    for name, depends in (("bench-a", ""), ("bench-b", ""), ("bench-c", "Depends: bench-a, bench-b\n")):
        tree = os.path.join(folder, name)
        share = os.path.join(tree, "usr/share", name)
        os.makedirs(os.path.join(tree, "DEBIAN"))
        os.makedirs(share)
        with open(os.path.join(tree, "DEBIAN/control"), "w", encoding="ascii") as f:
            f.write(f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n{depends}"
                    "Description: files to install\n")
        for i in range(DEB_FILES):
            with open(os.path.join(share, f"file{i}"), "w", encoding="ascii") as f:
                f.write(f"{chance.getrandbits(20000):x}\n")
        run_quietly(["dpkg-deb", "--root-owner-group", "--build", tree, os.path.join(folder, name + ".deb")], log)


def make_inputs(folder):
    """The archive of what the programs work on."""
    log = os.path.join(folder, "inputs.log")
    tree = os.path.join(folder, "inputs")
    os.mkdir(tree)
    make_text(os.path.join(tree, "text"))
    with open(os.path.join(tree, "source.c"), "w", encoding="ascii") as f:
        subprocess.run([sys.executable, GENERATE_C, "1", str(C_FUNCTIONS)], stdout=f, check=True)
    make_debs(folder, log)
    archive = os.path.join(folder, "inputs.tar")
    with tarfile.open(archive, "w") as tar:
        for name in os.listdir(FILES):
            tar.add(os.path.join(FILES, name), name)
        for name in os.listdir(tree):
            tar.add(os.path.join(tree, name), name)
        for name in ("bench-a.deb", "bench-b.deb", "bench-c.deb"):
            tar.add(os.path.join(folder, name), name)
    return archive


def command(side, files, inputs, names, folder):
    """How a side runs these programs."""
    if isinstance(side, sides.Native):
        unshare = ["unshare", "--mount", "--pid", "--fork"] + ([] if os.getuid() == 0 else ["--map-root-user"])
        return side.pin([*unshare, "sh", "-c", NATIVE_INIT, "sh", os.path.join(files, "root"), inputs, *names], 1)
    init = GUEST_INIT.format(names=" ".join(names))
    disk = sides.overlay(os.path.join(files, "disk.qcow2"), os.path.join(folder, "programs.qcow2"))
    return side.command(sides.Guest(
        kernel=os.path.join(files, "vmlinuz"), initrd=os.path.join(files, "initrd"), memory="2G",
        cmdline=f'root=/dev/vda rw console=ttyS0 quiet panic=-1 init=/bin/sh -- -c "{init}"',
        disks=(disk, (inputs, "raw"))))


def run(bench):
    names = [name for name in NAMES if bench.chosen("programs", "programs", name)]
    if not names:
        return
    bench.say("programs: the guest's disk and the inputs (the disk only once)")
    files = image(bench.cache)
    inputs = make_inputs(bench.folder)
    rounds = bench.rounds // 2 + 1  # they take the most time, and vary least
    for number in range(rounds):
        for side in bench.sides:
            bench.say(f"programs, round {number + 1} of {rounds}: {side.name}")
            results = sides.run_lines(side.name, command(side, files, inputs, names, bench.folder), TIMEOUT)
            for name in names:
                if name not in results:
                    raise sides.Failed(f"{side.name} said nothing of {name}")
                bench.add("programs", "programs", name, side.name, results[name])
