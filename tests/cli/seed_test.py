#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Seeds: what `ruche create` puts on the volume, what it refuses, and what the image's own program makes of such files."""
import json
import os
import subprocess
import unittest

from harness import HERE, Case, table
from iso import read_iso

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "B" * 43
KEY += " me@here"
HASH = "$6$saltsalt$" + "h" * 86
PROGRAM = os.path.join(HERE, "../../src/cli/guest/ruche-seed")


class Seeds(Case):
    def create(self, *options, status=0):
        return self.ruche("create", "web", "--kernel", "/k", *options, status=status)

    def volume(self):
        folder = json.loads(self.ruche("inspect", "--json", "web")[0])[0]["folder"]
        return os.path.join(folder, "seed.iso")

    def config(self, text):
        """Settings of cloud-init, which are JSON here."""
        first, rest = text.split("\n", 1)
        self.assertEqual(first, "#cloud-config")
        return json.loads(rest)


class Volume(Seeds):
    def test_all_options(self):
        keys = self.write("keys", f"# mine\n{KEY}\n\n{KEY} 'two': \"x\"\\ #1\n")
        self.create("--disk", "/d", "--hostname", "web1.example.org", "--user", "alice", "--password-hash", HASH, "--ssh-key",
                    keys, "--ssh-key", KEY + " é", "--network-config", self.write("net", "version: 2\n"))
        path = self.volume()
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        label, files = read_iso(path)
        self.assertEqual((label, sorted(files)), ("cidata", ["meta-data", "network-config", "user-data"]))
        inspected = json.loads(self.ruche("inspect", "--json", "web")[0])[0]
        self.assertEqual(json.loads(files["meta-data"]),
                         {"instance-id": inspected["uuid"], "local-hostname": "web1.example.org"})
        self.assertIs(inspected["config"]["seed"], True)
        self.assertEqual(files["network-config"], "version: 2\n")
        self.assertEqual(self.config(files["user-data"]), {"users": [
            {"name": "alice", "shell": "/bin/bash", "lock_passwd": False, "hashed_passwd": HASH,
             "ssh_authorized_keys": [KEY, f"{KEY} 'two': \"x\"\\ #1", KEY + " é"], "sudo": "ALL=(ALL) NOPASSWD:ALL"}]})

    def test_the_seed_is_the_last_disk_and_read_only(self):
        self.create("--disk", "/d", "--hostname", "x")
        self.env["FAKE"] = "guest"
        self.ruche("start", "web")
        self.addCleanup(self.ruche, "stop", "--force", "--timeout", "0", "web")
        line = next(line for line in self.log() if "--uuid" in line)
        self.assertEqual([word.split(" ", 1)[1] for word in line.split(" --") if word.startswith("disk ")],
                         ["/d", self.volume() + ",format=raw,readonly"])

    def test_root_without_a_user(self):
        self.create("--ssh-key", KEY)
        _, files = read_iso(self.volume())
        self.assertEqual(json.loads(files["meta-data"])["local-hostname"], "web")
        self.assertEqual(self.config(files["user-data"]), {"disable_root": False, "users": [
            {"name": "root", "shell": "/bin/bash", "lock_passwd": True, "ssh_authorized_keys": [KEY]}]})

    def test_own_user_data_comes_as_it_is(self):
        text = "#!/bin/sh\necho \"é\" '\n"
        self.create("--user", "bob", "--user-data", self.write("script", text))
        _, files = read_iso(self.volume())
        self.assertEqual(files["user-data"], text)
        self.assertEqual(self.config(files["vendor-data"])["users"][0]["name"], "bob")

    def test_no_seed(self):
        self.create()
        self.assertFalse(os.path.exists(self.volume()))
        self.assertNotIn("seed", json.loads(self.ruche("inspect", "--json", "web")[0])[0]["config"])


@table(
    ("no value", ["--hostname"], 2, "wants a value"),
    ("empty hostname", ["--hostname", ""], 2, "is no host name"),
    ("hostname with a space", ["--hostname", "a b"], 2, "'a b' is no host name"),
    ("hostname with a dash in front", ["--hostname", "a.-b"], 2, "is no host name"),
    ("hostname ends with a dot", ["--hostname", "a."], 2, "is no host name"),
    ("long label", ["--hostname", "a" * 64], 2, "is no host name"),
    ("user in capitals", ["--user", "Alice"], 2, "is no user's name"),
    ("user with a colon", ["--user", "a:b"], 2, "is no user's name"),
    ("user with a digit in front", ["--user", "1a"], 2, "is no user's name"),
    ("long user", ["--user", "a" * 33], 2, "is no user's name"),
    ("hash without its last part", ["--password-hash", "$6$salt"], 2, "is no hash"),
    ("short hash", ["--password-hash", "$6$salt$x"], 2, "is no hash"),
    ("hash with an empty part", ["--password-hash", "$6$$" + "h" * 86], 2, "is no hash"),
    ("hash with a colon", ["--password-hash", HASH + ":"], 2, "is no hash"),
    ("hash with a line", ["--password-hash", HASH + "\n"], 2, "is no hash"),
    ("no key", ["--ssh-key", "ssh-rsa hello"], 2, "is no public key"),
    ("dsa key", ["--ssh-key", KEY.replace("ed25519", "dss")], 2, "is no public key"),
    ("key with a second line", ["--ssh-key", KEY + "\nx"], 2, "is no public key"),
    ("cut key", ["--ssh-key", KEY.split()[0] + " AAAAC3Nz"], 2, "is no public key"),
    ("no file with keys", ["--ssh-key", "{here}/none"], 125, "No such file"),
    ("private key", ["--ssh-key", "{here}/private"], 2, "is a private key"),
    ("file without keys", ["--ssh-key", "{here}/comment"], 2, "has no key in it"),
    ("file with something else", ["--ssh-key", "{here}/text"], 2, "'hello' is no public key"),
    ("folder as user-data", ["--user-data", "{here}"], 125, "Is a directory"),
    ("user-data of no form", ["--user-data", "{here}/text"], 2, "begins with none of"),
    ("binary user-data", ["--user-data", "{here}/binary"], 2, "is no text"),
    ("large user-data", ["--user-data", "{here}/large"], 2, "is larger than"),
    ("empty network-config", ["--network-config", "{here}/blank"], 2, "is empty"),
)
class Refused(Seeds):
    def row(self, options, status, reason):
        self.write("private", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3\n")
        self.write("comment", "# none\n")
        self.write("text", "hello\n")
        self.write("binary", "#!\0")
        self.write("large", "#" * ((4 << 20) + 1))
        self.write("blank", " \n")
        _, err = self.create(*[word.replace("{here}", self.folder) for word in options], status=status)
        self.assertIn(reason, self.one_line(err))
        self.assertIn(options[0], err)
        self.assertFalse(os.path.exists(self.path("data/ruche/machines")) and os.listdir(self.path("data/ruche/machines")))

    def test_a_password_is_not_shown(self):
        self.assertNotIn("secret", self.create("--password-hash", "secret", status=2)[1])


def indented(text):
    return "".join(f"  {line}\n" for line in text.splitlines())


@table(
    ("script", "#!/bin/sh\nexit\n", "script\n" + indented("#!/bin/sh\nexit\n")),
    ("nothing", "#cloud-config\n", ""),
    ("hostname", "#cloud-config\nhostname: a  # b\n", "hostname a\n"),
    ("quotes", "#cloud-config\n'hostname': \"\\u00e9\\x41\\n\\\"\"\n", "hostname éA\n\"\n"),
    ("pairs of escapes", '#cloud-config\nhostname: "\\ud83d\\ude00"\n', "hostname 😀\n"),
    ("root's keys", "#cloud-config\nssh_authorized_keys: [a b, 'it''s']\n", "key of root a b\nkey of root it's\n"),
    ("users", "#cloud-config\nusers:\n- default\n- name: al\n  groups: x, y\n  passwd: $6$a$b\n-   name: bo\n"
     "    ssh_authorized_keys:\n    - k: 1\n      x: 2\n    - k2\n",
     "user al\n  password $6$a$b\n  groups x y\nuser bo\n  key k2\n"),
    ("JSON over lines", '#cloud-config\n{\n "users": [\n  {\n   "name": "al",\n "x": {}\n }\n ]\n}\n', "user al\n"),
    ("commands", "#cloud-config\nruncmd:\n  - echo 1\n  - [echo, \"it's\"]\n  - |\n    if a\n      b\n\n    c\n",
     "script\n" + indented("#!/bin/sh\necho 1\n'echo' 'it'\\''s'\nif a\n  b\n\nc\n")),
    ("null", "#cloud-config\nusers:\nhostname: ~\n", ""),
    ("anchor", "#cloud-config\nhostname: &a b\n", None, "line 2: '&a b' begins with a sign"),
    ("folded", "#cloud-config\nhostname: >\n  b\n", None, "begins with a sign"),
    ("two lines", "#cloud-config\nhostname: a\n  b\n", None, "line 3: it is indented too far"),
    ("twice", "#cloud-config\nhostname: a\nhostname: b\n", None, "line 3: 'hostname' is there twice"),
    ("colon", "#cloud-config\nhostname: a: b\n", None, "has ': ' in it"),
    ("open", "#cloud-config\nusers: [a,\n", None, "a value does not end"),
    ("open quotes", "#cloud-config\nhostname: \"a\n", None, "a value does not end"),
    ("behind", "#cloud-config\nusers: [] x\n", None, "there is more behind the value"),
    ("deep", "#cloud-config\nx: " + "[" * 99 + "]" * 99 + "\n", None, "nested too deeply"),
    ("list", "#cloud-config\n- a\n", None, "it is no list of settings"),
    ("user's name", "#cloud-config\nusers:\n- name: 'a:b'\n", None, "'a:b' is no user's name"),
    ("other form", "#include\nhttp://x\n", None, "'#include', is not honoured"),
)
class Program(Case):
    """The image's own reader of such files."""

    def row(self, text, wanted, reason=""):
        done = subprocess.run(["perl", PROGRAM, "check", self.write("user-data", text)], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0 if wanted is not None else 1, done)
        self.assertEqual(done.stdout, wanted or "")
        self.assertIn(reason, done.stderr)

    def test_what_is_not_honoured_is_said(self):
        path = self.write("user-data", "#cloud-config\npackages: [a]\nusers:\n- {name: al, uid: 7}\n")
        done = subprocess.run(["perl", PROGRAM, "check", path], capture_output=True, text=True, check=True)
        self.assertEqual(done.stderr, "user-data: 'packages' is not honoured\nuser-data: user al: 'uid' is not honoured\n")


unittest.main(verbosity=2)
