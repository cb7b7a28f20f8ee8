#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""ruche migrate and ruche receive: two data folders on one host are two hosts. There and back, over each kind of line; what is
refused; interrupted."""
import json
import os
import random
import re
import signal
import subprocess
import time
import unittest

from machine import PATIENCE, RUCHE, Console, Failed, free_port
from moving import listens
from tiny import Tiny

SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1 << 32)


class Hosts(Tiny):
    def setUp(self):
        super().setUp()
        self.here = self.env
        self.there = dict(self.env, XDG_DATA_HOME=self.path("data2"), XDG_RUNTIME_DIR=self.path("run2"))
        os.mkdir(self.path("run2"), 0o700)
        self.addCleanup(lambda: self.at(self.there, "stop", "--all", "--force", "--timeout", "0"))
        self.create("box", "--cmdline", "console=ttyS0 quiet panic=-1 writes")
        self.ruche("start", "box")
        self.counted(self.here, 5)

    def at(self, env, *words, status=0):
        mine, self.env = self.env, env
        try:
            return self.ruche(*words, status=status)
        finally:
            self.env = mine

    def counted(self, env, least):
        """Waits until the guest has said that so many records are durable."""
        c = Console("box", env)
        try:
            deadline = time.monotonic() + 90 * PATIENCE
            while int(c.expect(r"ack (\d+) end\n", 90).group(1)) < least:
                self.assertLess(time.monotonic(), deadline)
        finally:
            c.close()

    def receive(self, env, *words, wait=lambda: True):
        p = subprocess.Popen([RUCHE, "receive", *words], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        self.addCleanup(p.stderr.close)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.wait)
        self.addCleanup(lambda: p.poll() is None and p.kill())
        self.assertIn("waiting for a machine at", p.stderr.readline())
        deadline = time.monotonic() + 60 * PATIENCE
        while not wait():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        return p

    def migrate(self, env, *words, status=0):
        done = subprocess.run([RUCHE, "migrate", "box", *words], env=env, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=120 * PATIENCE, check=False)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stderr

    def received(self, process, status=0):
        process.wait(60 * PATIENCE)
        text = process.stdout.read(), process.stderr.read()
        self.assertEqual(process.returncode, status, text)
        return text[0] if status == 0 else text[1]

    def status(self, env, name="box"):
        return {m["name"]: m["status"] for m in json.loads(self.at(env, "ls", "--json"))}.get(name)

    def check(self, has, had):
        self.assertEqual(self.status(has), "running")
        self.assertIn(self.status(had), ("moved", None))
        before = re.findall(r"ack (\d+) end", self.at(has, "log", "--console", "box"))
        self.counted(has, int(before[-1]) + 5 if before else 5)

    def unix(self, env):
        path = env["XDG_RUNTIME_DIR"] + "/ruche/receive.sock"
        return path, lambda: listens(path)

    def test_there_and_back(self):
        uuid, nets = self.inspect("box")["uuid"], self.inspect("box")["config"]["nets"]
        for here, there in ((self.here, self.there), (self.there, self.here)) * 2:
            path, ready = self.unix(there)
            receiver = self.receive(there, wait=ready)
            text = self.migrate(here, "unix:" + path)
            self.assertRegex(text, r"'box' stood still for \d+ ms\n")
            print(text.splitlines()[-1], flush=True)
            self.assertEqual(self.received(receiver), "box\n")
            self.check(there, here)
            answer = json.loads(self.at(there, "inspect", "--json", "box"))[0]
            self.assertEqual((answer["uuid"], answer["config"]["nets"]), (uuid, nets))
        self.at(self.there, "rm", "box")
        self.assertEqual(self.status(self.here), "running")
        self.ruche("stop", "--force", "--timeout", "0", "box")
        self.check_layers("box")

    def test_what_was_left_is_not_removed(self):
        path, ready = self.unix(self.there)
        receiver = self.receive(self.there, "other", wait=ready)
        self.migrate(self.here, "unix:" + path)
        self.assertEqual(self.received(receiver), "other\n")
        self.assertEqual(self.status(self.there, "other"), "running")
        self.assertIn("moved to another host", self.ruche("rm", "box", status=125))
        self.assertIn("was moved to another host", self.ruche("start", "box", status=125))

    def test_tcp(self):
        key, other = self.path("key"), self.path("other")
        for path in (key, other):
            with open(path, "w", encoding="ascii") as f:
                f.write(os.urandom(32).hex() + "\n")
        address = f"tcp:127.0.0.1:{free_port()}"
        self.assertIn("--psk FILE", self.migrate(self.here, address, status=2))
        self.assertIn("--psk FILE", self.at(self.there, "receive", "--listen", address, status=2))
        receiver = self.receive(self.there, "--listen", address, "--psk", key, wait=lambda: self.tcp_listens(address))
        self.assertIn("not safe", self.migrate(self.here, address, "--psk", other, status=125))
        self.assertIn("not safe", self.received(receiver, 125))
        receiver = self.receive(self.there, "--listen", address, "--psk", key, wait=lambda: self.tcp_listens(address))
        self.migrate(self.here, address, "--psk", key, "--compress")
        self.assertEqual(self.received(receiver), "box\n")
        self.check(self.there, self.here)
        receiver = self.receive(self.here, "--listen", address, "--plain", wait=lambda: self.tcp_listens(address))
        self.migrate(self.there, address, "--plain", "--bandwidth", "200M", "--downtime", "100")
        self.assertEqual(self.received(receiver), "box\n")
        self.check(self.here, self.there)

    def tcp_listens(self, address):
        port = int(address.rsplit(":", 1)[1])
        with open("/proc/net/tcp", encoding="ascii") as f:
            return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in list(f)[1:])

    def certificate(self, name, ca=None, alt=None):
        """A key and a certificate, its own authority unless there is one."""
        key, cert = self.path(name + ".key"), self.path(name + ".pem")
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                 "-subj", "/CN=" + name, "-keyout", key, "-out", cert]
        if ca:
            words += ["-CA", self.path(ca + ".pem"), "-CAkey", self.path(ca + ".key")]
        if alt:
            words += ["-addext", "subjectAltName=" + alt, "-addext", "basicConstraints=critical,CA:false"]
        subprocess.run(words, check=True, capture_output=True)
        return ["--cert", cert, "--key", key]

    def test_certificates(self):
        self.certificate("authority")
        self.certificate("stranger")
        ca = ["--ca", self.path("authority.pem")]
        server = self.certificate("server", "authority", "DNS:localhost") + ca
        client = self.certificate("client", "authority", "DNS:client") + ca
        liar = self.certificate("liar", "stranger", "DNS:localhost") + ca
        port = free_port()
        listen, address = f"tcp:127.0.0.1:{port}", f"tcp:localhost:{port}"
        for who, whom, to in ((liar, server, address), (client, liar, address), (client, server, listen)):
            receiver = self.receive(self.there, "--listen", listen, *whom, wait=lambda: self.tcp_listens(listen))
            self.migrate(self.here, to, *who, status=125)
            self.received(receiver, 125)
            self.assertEqual(self.status(self.here), "running")
            self.assertIsNone(self.status(self.there))
        receiver = self.receive(self.there, "--listen", listen, *server, wait=lambda: self.tcp_listens(listen))
        self.migrate(self.here, address, *client)
        self.assertEqual(self.received(receiver), "box\n")
        self.check(self.there, self.here)

    def test_ssh(self):
        """A stand-in for ssh: the other host is the other data folder."""
        os.mkdir(self.path("bin"))
        with open(self.path("bin/ssh"), "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\n"
                    f"while [ \"$1\" != -- ]; do shift; done\n[ \"$2\" = me@far ] || exit 255\n"
                    f"export XDG_DATA_HOME={self.there['XDG_DATA_HOME']} XDG_RUNTIME_DIR={self.there['XDG_RUNTIME_DIR']}\n"
                    f"export PATH={os.path.dirname(RUCHE)}:$PATH\n"
                    "cat | sh -c \"$3\" | cat\n")
        os.chmod(self.path("bin/ssh"), 0o755)
        self.here = dict(self.here, PATH=self.path("bin") + ":" + os.environ["PATH"])
        self.migrate(self.here, "ssh:nobody@far", status=125)
        self.assertEqual(self.status(self.here), "running")
        self.migrate(self.here, "ssh:me@far")
        self.check(self.there, self.here)

    def test_refused(self):
        self.assertIn("no address", self.migrate(self.here, "somewhere", status=2))
        self.assertIn("are for TCP", self.migrate(self.here, "unix:/x", "--plain", status=2))
        path, ready = self.unix(self.there)
        self.assertIn("No such file", self.migrate(self.here, "unix:" + path, status=125))
        self.at(self.there, "create", "box", "--kernel", "/vmlinuz", "--net", "none")
        receiver = self.receive(self.there, wait=ready)
        self.assertIn("there is one of that name", self.migrate(self.here, "unix:" + path, status=125))
        self.received(receiver, 125)
        self.at(self.there, "rm", "box")
        self.ruche("snapshot", "create", "box", "first")
        receiver = self.receive(self.there, wait=ready)
        self.assertIn("it has 1 snapshot", self.migrate(self.here, "unix:" + path, status=125))
        receiver.send_signal(signal.SIGINT)
        self.received(receiver, 125)
        self.assertEqual(self.status(self.here), "running")
        self.assertEqual(self.at(self.there, "ls", "--json").strip(), "[]")

    def test_interrupted(self):
        """Ctrl-C: the machine goes on where it was, nothing of it stays at the other end."""
        path, ready = self.unix(self.there)
        receiver = self.receive(self.there, wait=ready)
        p = subprocess.Popen([RUCHE, "migrate", "box", "unix:" + path, "--bandwidth", "10M"], env=self.here,
                             stderr=subprocess.PIPE, text=True)
        self.assertRegex(p.stderr.readline(), r"migrate: \d+%, ")
        p.send_signal(signal.SIGINT)
        _, text = p.communicate(timeout=60 * PATIENCE)
        self.assertEqual(p.returncode, 125)
        self.assertIn("it was cancelled", text)
        self.assertIn("it was cancelled", self.received(receiver, 125))
        self.check(self.here, self.there)
        self.assertEqual(self.at(self.there, "ls", "--json").strip(), "[]")

    def test_commands_killed(self):
        """Whichever of the two commands is killed, and when: one side has the machine, and it can be moved again."""
        rng = random.Random(SEED)
        print("seed", SEED, flush=True)
        here, there = self.here, self.there
        for i in range(int(os.environ.get("ROUNDS", "8"))):
            path, ready = self.unix(there)
            receiver = self.receive(there, wait=ready)
            sender = subprocess.Popen([RUCHE, "migrate", "box", "unix:" + path], env=here, stderr=subprocess.DEVNULL)
            time.sleep(rng.random() * 0.6)
            victim = (receiver, sender)[i % 2]
            victim.kill()
            if sender.wait(60 * PATIENCE) < 0 and receiver.poll() is None:
                # Without the other command a receiver that has not been told of a machine waits for one.
                time.sleep(1)
                receiver.send_signal(signal.SIGINT)
            receiver.wait(60 * PATIENCE)
            deadline = time.monotonic() + 60 * PATIENCE
            while sorted(str(self.status(env)) == "running" for env in (here, there)) != [False, True] or self.starting():
                self.assertLess(time.monotonic(), deadline, (self.status(here), self.status(there)))
                time.sleep(0.05)
            if self.status(there) == "running":
                here, there = there, here
            self.counted(here, 1)
        path, ready = self.unix(there)
        receiver = self.receive(there, wait=ready)
        self.migrate(here, "unix:" + path)
        self.assertEqual(self.received(receiver), "box\n")
        self.check(there, here)

    def starting(self):
        """Whether somebody is not decided yet."""
        return any(self.status(env) in ("starting", "postmigrate", "finish-migrate", "no-answer") for env in (self.here, self.there))


if __name__ == "__main__":
    unittest.main(verbosity=2)
