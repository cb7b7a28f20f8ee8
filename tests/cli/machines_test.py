#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Named machines, mostly against a stand-in for the machine: the catalogue, starting and stopping, ends of all kinds, commands at the
same time."""
import json
import os
import signal
import sqlite3
import stat
import subprocess
import time
import unittest

import kernels
from harness import RECIPE, RUCHE, Named, Real, Terminal, contents, processes

ESCAPE = b"\x1d"


class Catalogue(Named):
    def test_create_list_inspect_remove(self):
        self.assertEqual(self.ruche("ls", "-a"), ("", ""))
        self.create("web", "--cpus", "2", "--memory", "1G", "--cmdline", "a b")
        self.create("db")
        self.assertEqual(self.ruche("ls"), ("", ""))
        self.assertRegex(self.ruche("ls", "-a")[0], r"(?m)^web +stopped +- +2 +1024M +- +/k$")
        self.assertEqual(sorted(self.list("-a")), ["db", "web"])
        web = self.inspect()
        self.assertEqual(web["status"], "stopped")
        self.assertRegex(web["uuid"], r"\A[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
        self.assertRegex(web["created"], r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")
        net = web["config"].pop("nets")[0]
        self.assertRegex(net["mac"], r"\A[0-9a-f][26ae](:[0-9a-f]{2}){5}\Z")
        self.assertEqual(net["backend"], "user")
        self.assertEqual(web["config"], {"cpus": 2, "memory": 1 << 30, "kernel": "/k", "cmdline": "a b", "disks": []})
        self.assertNotEqual(web["uuid"], self.inspect("db")["uuid"])
        self.assertIn(web["uuid"], self.ruche("inspect", "web")[0])
        self.assertTrue(os.path.isdir(web["folder"]))
        self.ruche("rm", "web", "db")
        self.assertEqual(self.list("-a"), {})
        self.assertEqual({name.split("-")[0] for name in contents(self.path("data"))}, {"ruche/catalog.db"})
        self.assertIn("no machine 'web'", self.refused("rm", "web"))

    def test_names_and_prefixes(self):
        for name in ("web", "web2", "other"):
            self.create(name)
        uuid = self.inspect("web2")["uuid"]
        for word, name in (("web", "web"), ("o", "other"), (uuid, "web2"), ("other", "other")):
            self.assertEqual(self.inspect(word)["name"], name)
        self.assertRegex(self.refused("inspect", "we"), "'we' may be 'web' or 'web2'")
        for word in ("", "x", "Web", "%", "web_"):
            self.refused("inspect", word)
        self.assertIn("one of that name", self.refused("create", "web", "--kernel", "/k"))
        self.assertIn("'other'", self.refused("rename", "web", "other"))
        self.refused("rename", "web", "a/b", status=2)
        self.ruche("rename", "web", "www")
        self.assertEqual(sorted(self.list("-a")), ["other", "web2", "www"])

    def test_set(self):
        self.create()
        mac = self.inspect()["config"]["nets"][0]["mac"]
        self.assertEqual(self.ruche("set", "web", "cpus=4", "memory=2G", "autostart=on", "cmdline=x=y z",
                                    "net=user,forward=tcp:127.0.0.1:2222:22"), ("", ""))
        config = self.inspect()["config"]
        self.assertEqual(config, {"cpus": 4, "memory": 2 << 30, "autostart": True, "cmdline": "x=y z", "kernel": "/k",
                                  "nets": [{"mac": mac, "backend": "user,forward=tcp:127.0.0.1:2222:22"}], "disks": []})
        self.ruche("set", "web", "cmdline=", "net=none", "memory=64")
        self.assertEqual(self.inspect()["config"], {"cpus": 4, "memory": 64 << 20, "autostart": True, "kernel": "/k",
                                                    "nets": [], "disks": []})
        before = self.inspect()
        for word, reason in (("cpus=0", "cpus: 0 is less than 1"), ("cpus=33", "more than 32"), ("cpus=two", "'two'"),
                             ("memory=1K", "memory: 1024 is less"), ("memory=x", "'x'"),
                             ("engine=warp", "engine: 'warp'"), ("cpu=v9", "cpu: 'v9'"), ("autostart=perhaps", "'perhaps'"),
                             ("kernel=", "'kernel' is missing"), ("cpus=", "'cpus' is missing"), ("disks=/x", "'disks'"),
                             ("colour=red", "'colour'"), ("cpus", "KEY=VALUE"), ("net=user,mac=01:00:00:00:00:00", "mac")):
            with self.subTest(word=word):
                self.assertIn(reason, self.refused("set", "web", "memory=3G", word, status=2))
                self.assertEqual(self.inspect(), before)

    def test_what_create_refuses(self):
        for words, reason in (((), "name"), (("web",), "--kernel"), (("web", "--kernel"), "--kernel wants a value"),
                              (("web", "--kernel", "/k", "--bogus"), "'--bogus'"), (("web", "a", "b"), "'b'"),
                              (("a/b", "--kernel", "/k"), "'a/b' is no name"),
                              (("web", "--kernel", "/k", "--cpus", "99"), "cpus: 99"),
                              (("web", "--kernel", "/k", "--memory", "0"), "memory: 0 is less"),
                              (("web", "--kernel", "/k", "--memory", "1000001K"), "no multiple"),
                              (("web", "--kernel", "/k", "--disk", ",readonly"), "no file"),
                              (("web", "--kernel", "/k", "--disk", "/d,format=vmdk"), "vmdk"),
                              (("web", "--kernel", "/k", "--disk", "/d,size=1"), "'size=1'"),
                              (("web", "--kernel", "/k", "--net", "none", "--net", "user"), "--net none"),
                              (("web", "--kernel", "/k", "--net", "user,mac=x"), "mac")):
            with self.subTest(words=words):
                self.assertIn(reason, self.refused("create", *words, status=2))
        self.assertIn("no image 'nosuch'", self.refused("create", "web", "nosuch"))
        self.assertEqual(self.list("-a"), {})

    def test_files_are_found_from_anywhere(self):
        self.write("here/d,1", "")
        self.how["cwd"] = self.path("here")
        self.create("web", "--disk", "d,,1,format=raw,readonly", "--disk", "/x/y", "--initrd", "i", "--module", "m a b",
                    "--device", "virtio-rng,id=r", "--no-reboot")
        self.how = {}
        self.ruche("start", "web")
        self.assertEqual(self.option("disk"), [self.path("here/d,,1") + ",format=raw,readonly", "/x/y"])
        self.assertEqual(self.option("initrd"), [self.path("here/i")])
        self.assertEqual(self.option("module"), [self.path("here/m a b")])
        self.assertEqual(self.option("device"), ["virtio-rng,id=r"])
        self.assertIn(" --no-reboot ", self.log()[-1] + " ")

    def test_leftovers_are_swept(self):
        self.create()
        machines = self.path("data/ruche/machines")
        self.write("data/ruche/machines/01234567-89ab-4cde-8f01-23456789abcd/disk.qcow2", "x")
        keep = self.write("data/ruche/machines/pet.qcow2", "x")
        self.ruche("ls")
        self.assertEqual(sorted(os.listdir(machines)), sorted([self.inspect()["uuid"], "pet.qcow2"]))
        self.assertTrue(os.path.exists(keep))


class Damage(Named):
    """A catalogue that is not what it was. Nothing is ever removed because of it."""

    def setUp(self):
        super().setUp()
        self.create()
        self.database = self.path("data/ruche/catalog.db")

    def sql(self, text):
        with sqlite3.connect(self.database) as db:
            db.execute(text)
        db.close()

    def kept(self):
        """All but the database's own helpers."""
        return {name: what for name, what in contents(self.path("data")).items() if ".db-" not in name}

    def test_bad_configuration(self):
        for config, reason in (("", "configuration"), ("[]", "not of type object"), ("{}", "'cpus' is missing"),
                               ('{"cpus": 1, "memory": 4096, "nets": [], "disks": [], "kernel": "/k"}', "memory: 4096"),
                               ('{"cpus": 1, "memory": 1048576, "nets": [], "disks": [{"file": "x"}], "kernel": "/k"}',
                                "disks[0].file: 'x'"),
                               ('{"cpus": 1, "memory": 1048576, "nets": [], "disks": [], "kernel": "/k", "x": 1}', "'x'")):
            with self.subTest(config=config):
                self.sql(f"UPDATE machine SET config = '{config}'")
                for words in (("inspect", "web"), ("start", "web"), ("rename", "web", "x")):
                    err = self.refused(*words)
                    self.assertIn("machine 'web'", err)
                    self.assertIn(reason, err)
                out, err = self.ruche("ls", "-a")
                self.assertEqual(out, "")
                self.assertIn("left out", self.one_line(err))

    def test_newer_form(self):
        self.sql("PRAGMA user_version = 99")
        before = self.kept()
        for words in (("ls",), ("create", "x", "--kernel", "/k"), ("rm", "web"), ("start", "web")):
            self.assertRegex(self.refused(*words), r"catalog\.db.*newer Ruche.*99")
        self.assertEqual(self.kept(), before)

    def test_broken_files(self):
        with open(self.database, "rb") as f:
            whole = f.read()
        for name, data in (("noise", bytes(range(256)) * 64), ("cut", whole[:5000]), ("text", b"hello\n" * 100),
                           ("page", whole[:4096] + b"\xff" * 4096 + whole[8192:])):
            with self.subTest(name):
                with open(self.database, "wb") as f:
                    f.write(data)
                folders = os.listdir(self.path("data/ruche/machines"))
                for words in (("ls", "-a"), ("inspect", "web"), ("rm", "web")):
                    self.assertIn("catalog.db", self.refused(*words))
                self.assertEqual(os.listdir(self.path("data/ruche/machines")), folders)
        with open(self.database, "wb") as f:
            f.write(whole)
        self.assertEqual(list(self.list("-a")), ["web"])

    def test_folder_in_its_place(self):
        os.unlink(self.database)
        os.mkdir(self.database)
        self.assertIn(self.database, self.refused("ls"))

    def test_machine_without_its_folder(self):
        os.rmdir(self.inspect()["folder"])
        self.assertIn("ruche rm web", self.refused("start", "web"))
        self.ruche("rm", "web")
        self.assertEqual(self.list("-a"), {})

    def test_broken_state(self):
        self.ruche("start", "web")
        self.ruche("stop", "web")
        for text in ("", "{", "[]", "{}", '{"life": "merry"}', '{"life": 5}'):
            self.write(os.path.relpath(os.path.join(self.inspect()["folder"], "state.json"), self.folder), text)
            self.assertEqual(self.list("-a")["web"]["status"], "died")
        self.ruche("start", "web")
        self.assertEqual(self.list()["web"]["status"], "running")


class Life(Named):
    def test_start_stop(self):
        self.create()
        self.assertEqual(self.ruche("start", "web"), ("", ""))
        line = self.log()[-1]
        web = self.inspect()
        for words in (f"--name web --uuid {web['uuid']}", "--kernel /k", f"--control {web['folder']}/control.sock",
                      f"--serial unix:{web['folder']}/console.sock", f"--agent unix:{web['folder']}/agent.sock", f"--serial-log {web['console']}", f"mac={web['config']['nets'][0]['mac']}",
                      "--cpus 1", "--memory 524288K"):
            self.assertIn(words, line)
        self.assertEqual(web["status"], "running")
        self.assertTrue(os.path.exists(f"/proc/{web['pid']}"))
        self.assertRegex(self.ruche("ls")[0], r"(?m)^web +running ")
        self.assertIn("runs already", self.refused("start", "web"))
        self.assertIn("it runs", self.refused("rm", "web"))
        self.ruche("pause", "web")
        self.assertEqual(self.inspect()["status"], "paused")
        self.assertIn("--force", self.refused("stop", "web"))
        self.ruche("resume", "web")
        self.assertEqual(self.ruche("stop", "web"), ("", ""))
        self.assertEqual(self.inspect()["status"], "stopped")
        self.assertEqual(self.sockets(), [])
        self.assertEqual(processes(self.folder), [])
        self.ruche("stop", "web")
        self.ruche("wait", "web")
        for verb in ("pause", "resume", "console"):
            self.assertIn("ruche start web", self.refused(verb, "web"))
        self.assertRegex(self.ruche("log", "web")[0], r"\A\S+Z ruche: started, process \d+\n\S+Z ruche: ended: the guest "
                                                      r"powered off\n\Z")

    def test_nothing_of_the_command_is_kept(self):
        """Neither its output nor what else it was started with."""
        self.create()
        read, write = os.pipe()
        extra, kept = os.pipe()
        subprocess.run([RUCHE, "start", "web"], env=self.env, check=True, stdout=write, pass_fds=[kept])
        for fd in (write, kept):
            os.close(fd)
        for fd in (read, extra):
            self.assertEqual(os.read(fd, 1), b"")  # the end: nobody has the other side
            os.close(fd)
        self.assertEqual(os.readlink(f"/proc/{self.state()['keeper']}/cwd"), self.inspect()["folder"])

    def test_long_path(self):
        """Longer than a socket's may be."""
        self.env["XDG_DATA_HOME"] = self.path("x" * 100)
        self.create()
        self.ruche("start", "web")
        web = self.inspect()
        self.assertEqual(web["control"], f"{self.runtime}/ruche/{web['uuid']}.control.sock")
        self.assertEqual(len(self.sockets()), 2)  # the stand-in makes none for the agent
        self.ruche("stop", "web")
        self.assertEqual(self.sockets(), [])

    def test_after_the_user_has_logged_out(self):
        self.create()
        self.ruche("start", "web")
        os.rmdir(self.runtime)
        self.assertEqual(self.inspect()["status"], "running")
        self.ruche("stop", "web")

    def test_settings_of_a_running_machine(self):
        self.create()
        self.ruche("start", "web")
        self.assertIn("next time", self.ruche("set", "web", "cpus=3")[0])
        pid = self.inspect()["pid"]
        self.ruche("rename", "web", "www")
        self.assertEqual(self.inspect("www")["pid"], pid)
        self.assertEqual(self.inspect("www")["status"], "running")
        self.ruche("restart", "www")
        self.assertNotEqual(self.inspect("www")["pid"], pid)
        self.assertEqual(self.option("cpus"), ["3"])
        self.assertEqual(self.option("name")[0].split()[0], "www")

    def test_several(self):
        for name in ("a1", "b1", "c1"):
            self.create(name)
        err = self.ruche("start", "a1", "nosuch", "b1", status=125)[1]
        self.assertIn("'nosuch'", self.one_line(err))
        self.assertEqual(sorted(self.list()), ["a1", "b1"])
        self.ruche("stop", "--all")
        self.assertEqual(self.list(), {})
        self.ruche("set", "b1", "autostart=on")
        self.ruche("set", "c1", "autostart=on")
        self.ruche("start", "c1")
        self.ruche("start", "--autostart")
        self.assertEqual(sorted(self.list()), ["b1", "c1"])
        for words in (("start", "--autostart", "a1"), ("start",), ("stop",), ("stop", "--all", "a1"), ("rm",), ("wait",),
                      ("stop", "--timeout", "x", "a1"), ("console",), ("console", "a1", "b1"), ("set", "a1"), ("rename", "a1"),
                      ("ls", "x"), ("top", "x"), ("log",), ("pause", "-x", "a1"), ("inspect",)):
            self.refused(*words, status=2)
        self.ruche("rm", "-f", "a1", "b1", "c1")
        self.assertEqual(self.list("-a"), {})
        self.assertEqual(processes(self.folder), [])

    def test_top(self):
        self.create()
        self.ruche("start", "web")
        out = self.ruche("top", "--once")[0].splitlines()
        self.assertEqual(len(out), 2)
        self.assertRegex(out[1], r"\Aweb +running +\d+s +[\d.]+ +1 +\d+M +512M\Z")
        row = json.loads(self.ruche("top", "--json")[0])[0]
        self.assertEqual(row["name"], "web")
        self.assertGreaterEqual(row["cpu_percent"], 0)
        self.assertGreater(row["resident"], 1 << 20)
        terminal = Terminal(["top"], self.env)
        self.addCleanup(terminal.close)
        for _ in range(2):
            terminal.expect("\x1b[H\x1b[JNAME")
            terminal.expect("web ")
        terminal.send(b"\x03")
        self.assertEqual(terminal.wait(), -signal.SIGINT)
        self.ruche("stop", "web")
        self.assertEqual(json.loads(self.ruche("top", "--json")[0]), [])

    def test_kept_output_is_shown(self):
        self.create()
        self.write(os.path.relpath(self.inspect()["console"], self.folder), "two\n")
        self.write(os.path.relpath(self.inspect()["console"] + ".1", self.folder), "one\n")
        self.assertEqual(self.ruche("log", "--console", "web")[0], "one\ntwo\n")

    def test_log_follows(self):
        self.create()
        self.ruche("start", "web")
        p = self.popen("log", "-f", "web")
        self.assertIn("started", p.stdout.readline())
        self.ruche("stop", "web")
        self.assertIn("ended: the guest powered off", p.stdout.readline())
        self.assertEqual(p.wait(20), 0)

    def test_saving_by_name(self):
        self.create()
        self.ruche("start", "web")
        self.ruche("save", "web", self.path("x"))
        with open(self.path("x"), encoding="ascii") as f:
            self.assertEqual(f.read(), "memory")  # the stand-in's
        self.assertIn("ruche-save", self.log())


class Ends(Named):
    """How a machine ends, and what is said of it: status in the list, reason, exit status of wait."""

    def say(self, text):
        return subprocess.run([RUCHE, "console", "web"], input=text, capture_output=True, text=True, timeout=60, check=False,
                              env=self.env)

    def ended(self, status, word, reason):
        self.wait_until(lambda: not processes(self.folder))
        err = self.ruche("wait", "web", status=status)[1]
        web = self.list("-a")["web"]
        self.assertEqual(web["status"], word)
        if reason:
            self.assertIn(reason, self.one_line(err))
            self.assertIn(reason, web["reason"])
            self.assertIn(reason, self.ruche("ls")[0])
        else:
            self.assertEqual(err, "")
            self.assertNotIn("reason", web)
            self.assertEqual(self.ruche("ls")[0], "")
        self.assertEqual(self.sockets(), [])

    def test_exit_statuses(self):
        self.create()
        for status, word, reason in ((0, "stopped", ""), (3, "stopped", ""), (126, "died", "the guest crashed"),
                                     (125, "died", "exit status 125"), (130, "stopped", "")):
            with self.subTest(status=status):
                self.ruche("start", "web")
                done = self.say(f"exit {status}\n")
                self.assertEqual(done.returncode, status, done.stderr)
                self.assertIn("bye", done.stdout)
                self.ended(status, word, reason)

    def test_last_words(self):
        self.create()
        self.ruche("start", "web")
        self.say("complain\nexit 125\n")
        self.ended(125, "died", "warning: something")

    def test_killed_machine(self):
        self.create()
        self.ruche("start", "web")
        self.kill(self.inspect()["pid"])
        self.ended(125, "died", "killed by signal 9 (Killed)")
        self.ruche("start", "web")
        self.ruche("stop", "web")
        self.ended(0, "stopped", "")

    def test_killed_keeper(self):
        """The machine goes on, is still locked, and can be stopped; only nobody says how it ended."""
        self.create()
        self.ruche("start", "web")
        self.kill(self.state()["keeper"])
        self.assertEqual(self.inspect()["status"], "running")
        self.assertIn("runs already", self.refused("start", "web"))
        self.refused("rm", "web")
        self.ruche("stop", "web")
        self.assertEqual(self.list("-a")["web"]["reason"], "ended without saying why")
        self.ruche("wait", "web", status=125)
        self.ruche("start", "web")
        self.kill(self.state()["keeper"])
        self.ruche("rm", "--force", "web")
        self.wait_until(lambda: not processes(self.folder))
        self.assertEqual(self.sockets(), [])

    def test_both_killed(self):
        self.create()
        self.ruche("start", "web")
        pid = self.inspect()["pid"]
        self.kill(self.state()["keeper"])
        self.kill(pid)
        self.assertEqual(self.list("-a")["web"]["reason"], "ended without saying why")
        self.ruche("start", "web")
        self.assertEqual(self.inspect()["status"], "running")

    def test_machine_that_does_not_start(self):
        self.create()
        for fake, reason in (("refuse", "open disk 'x': No such file or directory"), ("silent", "exit status 3"),
                             ("crash", "killed by signal 11")):
            with self.subTest(fake=fake):
                self.assertIn(reason, self.one_line(self.ruche("start", "web", status=125, FAKE=fake)[1]))
                self.wait_until(lambda: not processes(self.folder))  # the keeper speaks before it ends
                self.assertIn(reason if fake != "silent" else "ended", self.ruche("log", "web")[0])
        self.assertIn("/nonexistent", self.one_line(self.ruche("start", "web", status=125, RUCHE_VMM="/nonexistent")[1]))
        self.ruche("start", "web")


class Sleepy(Named):
    fake = "sleepy"

    def test_the_button_is_pressed_again(self):
        """A guest that was still starting did not hear it."""
        self.create()
        self.ruche("start", "web")
        self.assertEqual(self.ruche("stop", "--timeout", "30", "web"), ("", ""))
        self.assertEqual(self.log().count("system_powerdown"), 2)


class Heedless(Named):
    fake = "heedless"

    def test_force_only_when_asked(self):
        self.create()
        self.ruche("start", "web")
        err = self.refused("stop", "--timeout", "1", "web")
        self.assertIn("not powered off in time", err)
        self.assertIn("stop --force", err)
        self.assertEqual(self.inspect()["status"], "running")
        self.ruche("stop", "--timeout", "0", "--force", "web")
        self.assertEqual(self.inspect()["exit_status"], 130)
        self.ruche("wait", "web", status=130)

    def test_restart_by_force(self):
        self.create()
        self.ruche("start", "web")
        pid = self.inspect()["pid"]
        self.refused("restart", "--timeout", "0", "web")
        self.assertEqual(self.inspect()["pid"], pid)
        self.ruche("restart", "--timeout", "0", "--force", "web")
        self.assertNotEqual(self.inspect()["pid"], pid)

    def test_paused_is_not_waited_for(self):
        self.create()
        self.ruche("start", "web")
        self.ruche("pause", "web")
        self.ruche("stop", "--force", "--timeout", "1000", "web")
        self.assertEqual(self.list("-a")["web"]["status"], "stopped")

    def test_stopped_process(self):
        """Not even the control socket answers."""
        self.create()
        self.ruche("start", "web")
        os.kill(self.inspect()["pid"], signal.SIGSTOP)
        self.assertEqual(self.list()["web"]["status"], "no-answer")
        self.assertIn("no-answer", self.refused("stop", "web"))
        self.ruche("rm", "--force", "web")
        self.assertEqual(processes(self.folder), [])


class AtOnce(Named):
    def test_first_commands_of_all(self):
        """The catalogue is made by whoever comes first."""
        all_of_them = [self.popen("create", f"m{i}", "--kernel", "/k") for i in range(20)]
        for p in all_of_them:
            self.assertEqual((p.wait(60), p.stderr.read()), (0, ""))
        self.assertEqual(len(self.list("-a")), 20)

    def test_one_name(self):
        all_of_them = [self.popen("create", "web", "--kernel", "/k") for _ in range(10)]
        self.assertEqual(sorted(p.wait(60) for p in all_of_them), [0] + [125] * 9)
        self.assertEqual(len(os.listdir(self.path("data/ruche/machines"))), 1)

    def test_starts(self):
        self.create()
        all_of_them = [self.popen("start", "web") for _ in range(10)]
        self.assertEqual(sorted(p.wait(60) for p in all_of_them), [0] + [125] * 9)
        for p in all_of_them:
            if p.returncode:
                self.assertRegex(self.one_line(p.stderr.read()), "already|just starting|hands on it")
        self.assertEqual(sum("--uuid" in line for line in self.log()), 1)

    def test_settings(self):
        """None is lost."""
        self.create()
        words = ["cpus=7", "memory=3G", "engine=bt", "cpu=v2", "autostart=on", "reboot=off", "cmdline=z", "initrd=/i"]
        for p in [self.popen("set", "web", word) for word in words]:
            self.assertEqual((p.wait(60), p.stderr.read()), (0, ""))
        config = self.inspect()["config"]
        self.assertEqual((config["cpus"], config["memory"], config["engine"], config["cpu"], config["autostart"],
                          config["reboot"], config["cmdline"], config["initrd"]), (7, 3 << 30, "bt", "v2", True, False, "z", "/i"))

    def test_looks_at_what_changes(self):
        """A machine that is started and stopped in order never looks like one that died."""
        self.create()
        loop = subprocess.Popen(["sh", "-c", f"for i in $(seq 15); do {RUCHE} start web && {RUCHE} stop web || exit 1; done"],
                                env=self.env)
        seen = set()
        while loop.poll() is None:
            seen.update(o["status"] for o in self.list("-a").values())
        self.assertEqual(loop.returncode, 0)
        self.assertLessEqual(seen, {"stopped", "starting", "running", "no-answer"})
        self.assertLessEqual({"stopped", "running"}, seen)

    def test_while_it_starts(self):
        self.create()
        p = self.popen("start", "web", FAKE="slow")
        self.wait_until(lambda: self.list().get("web", {}).get("status") == "starting")
        self.wait_until(self.vmm_runs)
        self.assertIn("just starting", self.refused("start", "web"))
        self.assertIn("just being started", self.refused("rm", "web"))
        self.assertIn("just being started", self.refused("pause", "web"))
        self.assertIsNone(p.poll())
        self.ruche("rm", "--force", "web")
        self.assertEqual(p.wait(30), 0)  # the stand-in says that it runs when it is told to end
        self.assertEqual(self.list("-a"), {})

    def test_killed_start_goes_on(self):
        self.create()
        p = self.popen("start", "web", FAKE="slow")
        self.wait_until(self.vmm_runs)
        p.kill()
        p.wait()
        self.assertEqual(self.list()["web"]["status"], "starting")


class Console(Named):
    def setUp(self):
        super().setUp()
        self.create()
        self.ruche("start", "web")

    def terminal(self):
        t = Terminal(["console", "web"], self.env)
        self.addCleanup(t.close)
        t.expect("hello")
        return t

    def test_detach_leaves_it_running(self):
        for _ in range(2):
            t = self.terminal()
            self.assertTrue(t.is_raw())
            t.send(b"hi there")
            t.expect("hi there")
            t.send(ESCAPE + b"h")
            t.expect("d detach")
            t.send(ESCAPE + b"d")
            self.assertEqual(t.wait(), 0)
            self.assertTrue(t.restored())
            self.assertEqual(self.inspect()["status"], "running")

    def test_signals_detach(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            t = self.terminal()
            t.kill(number)
            self.assertEqual(t.wait(), 128 + number)
            self.assertTrue(t.restored())
            self.assertEqual(self.inspect()["status"], "running")

    def test_keys_reach_the_machine(self):
        t = self.terminal()
        t.send(ESCAPE + b"r")
        t.expect("reset")
        t.send(ESCAPE + b"p")
        t.expect("power button")
        self.assertEqual(t.wait(), 0)
        self.assertTrue(t.restored())
        self.assertIn("system_reset", self.log())
        self.assertIn("system_powerdown", self.log())
        self.wait_until(lambda: self.inspect()["status"] == "stopped")

    def test_quit_ends_it(self):
        t = self.terminal()
        t.send(ESCAPE + b"q")
        self.assertEqual(t.wait(), 130)
        self.assertEqual(self.inspect()["status"], "stopped")

    def test_the_machines_end(self):
        t = self.terminal()
        t.send(b"exit 7\r")
        t.expect("bye")
        self.assertEqual(t.wait(), 7)
        self.ruche("start", "web")
        t = self.terminal()
        t.send(b"die\r")
        self.assertEqual(t.wait(), 125)
        self.assertIn("signal 11", t.text)
        self.assertTrue(t.restored())


class Images(Named):
    def setUp(self):
        super().setUp()
        self.write("recipes/small", RECIPE, 0o755)
        self.ruche("image", "build", "small")

    def test_machine_on_an_image(self):
        self.ruche("create", "web", "small")
        web = self.inspect()
        image = json.loads(self.ruche("image", "inspect", "--json", "small")[0])
        self.assertEqual(web["config"]["image"], {"name": "small", "disk_sha256": image["disk_sha256"]})
        self.assertEqual((web["config"]["memory"], web["image"]), (1 << 30, "small"))
        disk = web["folder"] + "/disk.qcow2"
        info = json.loads(subprocess.run(["qemu-img", "info", "--output=json", disk], check=True,
                                         stdout=subprocess.PIPE).stdout)
        self.assertEqual(info["full-backing-filename"], image["disk"])
        self.ruche("start", "web")
        self.assertEqual(self.option("disk"), [disk + ",format=qcow2"])
        self.assertEqual(self.option("kernel"), [image["kernel"]])
        self.assertEqual(self.option("initrd"), [image["initrd"]])
        self.assertEqual(self.option("cmdline"), [image["cmdline"]])
        self.ruche("stop", "web")
        self.ruche("set", "web", "kernel=/k", "cmdline=x")
        self.ruche("start", "web")
        self.assertEqual((self.option("kernel"), self.option("initrd"), self.option("cmdline")), (["/k"], [], ["x"]))

    def test_image_that_is_needed(self):
        self.ruche("create", "web", "small")
        for words in (("image", "rm", "small"), ("image", "build", "small")):
            err = self.refused(*words)
            self.assertIn("machine 'web'", err)
            self.assertIn("--force", err)
        self.ruche("image", "build", "--force", "--size", "9G", "small")
        self.assertIn("earlier build of image 'small'", self.refused("start", "web"))
        self.ruche("image", "rm", "--force", "small")
        self.assertIn("no image 'small'", self.refused("start", "web"))
        self.ruche("rm", "web")
        self.ruche("image", "build", "small")
        self.ruche("image", "rm", "small")


class RealOnes(Real):
    """With the real machine: what the stand-in cannot show."""

    def setUp(self):
        super().setUp()
        self.addCleanup(self.ruche, "stop", "--all", "--force", "--timeout", "0")

    def made(self, name, code):
        kernel = self.files.write("k-" + name, kernels.multiboot(code))
        self.ruche("create", name, "--memory", "16M", "--kernel", kernel)
        self.ruche("start", name)

    def test_ends(self):
        out_panic = b"\x66\xba\x05\x05\xb0\x01\xee"  # 1 to pvpanic's port
        self.made("off", kernels.say("good bye\n") + kernels.POWER_OFF)
        self.made("crash", out_panic + kernels.HANG)
        self.made("still", kernels.say("here I am\n") + kernels.HANG)
        self.ruche("wait", "off")
        self.assertIn("the guest crashed", self.ruche("wait", "crash", status=126)[1])
        self.assertEqual(self.ruche("log", "--console", "off")[0], "good bye\n")
        self.assertEqual({o["name"]: o["status"] for o in json.loads(self.ruche("ls", "--json")[0])},
                         {"crash": "died", "still": "running"})
        self.ruche("pause", "still")
        self.assertRegex(self.ruche("ls")[0], "(?m)^still +paused ")
        self.assertIn("not powered off in time", self.resumed_and_asked())
        self.ruche("rm", "--force", "off", "crash", "still")
        self.assertEqual(processes(self.folder), [])

    def resumed_and_asked(self):
        self.ruche("resume", "still")
        return self.ruche("stop", "--timeout", "0", "still", status=125)[1]

    def test_console_shows_what_was_said(self):
        self.made("web", kernels.say("here I am\n") + kernels.HANG)
        for _ in range(2):
            t = Terminal(["console", "web"], self.env)
            self.addCleanup(t.close)
            t.expect("here I am")
            busy = self.ruche("console", "web", status=125)[1]
            self.assertIn("another one is attached", busy)
            t.send(ESCAPE + b"d")
            self.assertEqual(t.wait(), 0)

    def test_bad_settings_are_told_by_start(self):
        """The catalogue knows their form, the machine their meaning; what is wrong is in one line."""
        for option, value, reason in (("--device", "nosuch", "nosuch"), ("--net", "bogus", "bogus"),
                                      ("--disk", "/nonexistent/d", "/nonexistent/d"), ("--initrd", "/nonexistent/é", "/nonexistent/é")):
            with self.subTest(option=option):
                self.ruche("create", "web", "--kernel", self.files["kernel"], option, value)
                self.assertIn(reason, self.one_line(self.ruche("start", "web", status=125)[1]))
                web = json.loads(self.ruche("inspect", "--json", "web")[0])[0]
                self.assertEqual(web["status"], "died")
                self.assertIn(reason, web["reason"])
                self.ruche("rm", "web")


unittest.main(verbosity=2)
