#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""machine.schema.json as Ruche reads it and as the reference implementation in Python does: the same verdict on every
document, good ones, bad ones, and good ones changed at random. CHECK is the program of schema_check.c, SCHEMA the schema.
"""
import copy
import json
import os
import random
import subprocess
import unittest

import jsonschema

SEED = int(os.environ.get("RUCHE_TEST_SEED", random.randrange(1 << 32)))
ROUNDS = 3000 * int(os.environ.get("RUCHE_LONG", "1"))

with open(os.environ["SCHEMA"], encoding="utf-8") as schema_file:
    SCHEMA = json.load(schema_file)

SMALL = {"cpus": 1, "memory": 1 << 20, "nets": [], "disks": [], "kernel": "/k"}
FULL = {"engine": "bt,native=off", "cpu": "v3", "cpus": 32, "memory": 1 << 40, "reboot": False, "autostart": True,
        "image": {"name": "debian-12.1_x", "disk_sha256": "0123456789abcdef" * 4}, "kernel": "/k", "initrd": "/i",
        "cmdline": "console=ttyS0 é", "modules": ["/m a b", "/n"],
        "disks": [{"file": "/d"}, {"file": "/e", "format": "raw", "readonly": True}, {"file": "/f", "format": "qcow2"}],
        "nets": [{"mac": "52:54:00:Ab:cd:ef", "backend": "user,forward=tcp:127.0.0.1:1:2"},
                 {"mac": "02:00:00:00:00:00", "backend": "user"}], "devices": ["virtio-rng,id=r"]}
# Values to put somewhere: at and past limits, and of other types.
VALUES = [None, True, False, 0, 1, -1, 32, 33, 2.0, 2.5, 1e300, 4096, (1 << 20) - 4096, 1 << 20, (1 << 20) + 1, 1 << 40,
          (1 << 40) + 4096, "", "/", "x", "/x" * 2047, "/" * 4095, "/" * 4096, "é" * 4095, "é" * 4096, "v1", "v4", "auto", "kvm,native=auto",
          "bt,native=", "bt,", "raw", "a" * 63, "a" * 64, "-a", "a b", "f" * 64, "F" * 64, "f" * 63, "01:00:00:00:00:00",
          "02:00:00:00:00", "02:00:00:00:00:000", [], {}, [[]], [{}], ["/x"] * 64, ["/x"] * 65, [{"file": "/x"}] * 63,
          [{"file": "/x"}] * 64, {"name": "a"}, {"file": "/x", "x": 1}]


def places(o, path=()):
    """The ways to all values in a document."""
    yield path
    for key in o if isinstance(o, dict) else range(len(o)) if isinstance(o, list) else ():
        yield from places(o[key], path + (key,))


def changed(rng, document):
    """The document with one thing taken away, added or replaced."""
    o = copy.deepcopy(document)
    path = rng.choice([p for p in places(o) if p])
    parent = o
    for key in path[:-1]:
        parent = parent[key]
    what = rng.randrange(4)
    if what == 0:
        del parent[path[-1]]
    elif what == 1 and isinstance(parent, dict):
        parent[rng.choice(list(SCHEMA["properties"]) + ["x", "name"])] = rng.choice(VALUES)
    elif what == 2 and isinstance(parent, list):
        parent.append(rng.choice(VALUES))
    else:
        parent[path[-1]] = rng.choice(VALUES)
    return o


class Verdicts(unittest.TestCase):
    def verdicts(self, documents):
        text = "".join(json.dumps(o) + "\n" for o in documents)
        out = subprocess.run([os.environ["CHECK"]], input=text, check=True, stdout=subprocess.PIPE, text=True).stdout
        lines = out.splitlines()
        self.assertEqual(len(lines), len(documents))
        return lines

    def compare(self, documents):
        """Gives how many are good."""
        validator = jsonschema.Draft202012Validator(SCHEMA)
        good = 0
        for o, line in zip(documents, self.verdicts(documents)):
            reference = next((e.message for e in validator.iter_errors(o)), None)
            self.assertEqual(line == "good", reference is None, (json.dumps(o), line, reference))
            good += reference is None
        return good

    def test_the_schema_itself(self):
        jsonschema.Draft202012Validator.check_schema(SCHEMA)

    def test_good_ones(self):
        self.assertEqual(self.compare([SMALL, FULL]), 2)

    def test_every_value_everywhere(self):
        documents = []
        for path in places(FULL):
            for value in VALUES:
                o = {"all": copy.deepcopy(FULL)}
                parent = o
                for key in ("all", *path)[:-1]:
                    parent = parent[key]
                parent[("all", *path)[-1]] = value
                documents.append(o["all"])
        good = self.compare(documents)
        self.assertTrue(0 < good < len(documents))

    def test_random_changes(self):
        print("seed", SEED, flush=True)
        rng = random.Random(SEED)
        documents = []
        for _ in range(ROUNDS):
            o = rng.choice([SMALL, FULL])
            for _ in range(rng.randrange(1, 4)):
                o = changed(rng, o) if isinstance(o, dict) and o else o
            documents.append(o)
        good = self.compare(documents)
        self.assertTrue(0 < good < len(documents))

    def test_reasons_name_the_place(self):
        for path, value, reason in ((("cpus",), 99, "cpus: 99 is more than 32"), (("disks", 1, "format"), "vmdk",
                                    "disks[1].format: 'vmdk' is none of raw, qcow2"), (("nets", 0), {}, "nets[0]: 'mac' is missing"),
                                    (("image", "x"), 1, "image: 'x' is unknown"), (("reboot",), 1, "reboot: not of type boolean"),
                                    (("modules", 1), "m", "modules[1]: 'm' does not match ^/")):
            o = copy.deepcopy(FULL)
            parent = o
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = value
            self.assertEqual(self.verdicts([o]), ["configuration: " + reason])


if __name__ == "__main__":
    unittest.main(verbosity=2)
