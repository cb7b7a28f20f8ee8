#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest agent of named machines, against stand-ins for the machine and the agent: exec, addresses, time, freezing, and
agents that are out to harm."""
import base64
import json
import os
import re
import resource
import signal
import subprocess
import time
import unittest

from fake_agent import MARK, FakeAgent, Refusal, alive
from harness import RUCHE, Named, processes

FREEZE = os.environ.get("FREEZE", os.path.join(os.path.dirname(RUCHE), "../../tests/cli/test-freeze"))
MEMORY = 1 << 30  # address space of `ruche` here; the sanitizers' own is larger than any limit
with open(RUCHE, "rb") as program:
    SANITIZED = b"__asan_init" in program.read()


class Agent(Named):
    def setUp(self):
        super().setUp()
        self.create()
        self.ruche("start", "web")
        self.agent = FakeAgent(self.state()["agent"])
        self.addCleanup(self.agent.close)
        if not SANITIZED:
            self.how["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    def bytes(self, *words, stdin=b"", status=0):
        """As ruche(), without taking anything for text."""
        done = subprocess.run([RUCHE, *words], input=stdin, capture_output=True, timeout=60, check=False, env=self.env,
                              **self.how)
        self.assertEqual(done.returncode, status, (words, done.stdout[:1000], done.stderr[:1000]))
        return done.stdout, done.stderr

    def exec(self, *words, status=0):
        return self.ruche("exec", "web", "--", *words, status=status)

    def refused_exec(self, *words):
        err = self.refused("exec", "web", "--", *(words or ("true",)))
        self.assertIsNone(re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", err), err)
        return err


class Exec(Agent):
    def test_statuses(self):
        for line, status in (("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137)):
            self.assertEqual(self.exec("sh", "-c", line, status=status), ("", ""))

    def test_streams_and_bytes(self):
        self.assertEqual(self.exec("sh", "-c", "echo out; echo err >&2; exit 3", status=3), ("out\n", "err\n"))
        data = bytes(range(256)) * 20000
        self.assertEqual(self.bytes("exec", "-i", "web", "--", "cat", stdin=data), (data, b""))
        self.assertEqual(self.bytes("exec", "-i", "web", "--", "sh", "-c", "cat >&2", stdin=data), (b"", data))
        for size in range(5):
            self.assertEqual(self.bytes("exec", "-i", "web", "--", "cat", stdin=data[:size]), (data[:size], b""))

    def test_words_arrive_as_they_are(self):
        words = ["", " ", "a b", "--", "-i", "*", "'\"\\", "$HOME", "\u00e9\u4e16", "\n", "--help"]
        self.assertEqual(self.exec("printf", "%s|", *words)[0], "".join(word + "|" for word in words))

    def test_input_only_when_asked(self):
        self.assertEqual(self.ruche("exec", "web", "--", "cat", stdin="text"), ("", ""))
        self.assertNotIn("input_data", self.agent.calls[0][1])
        self.assertEqual(self.ruche("exec", "--interactive", "web", "--", "cat", stdin="text")[0], "text")

    def test_too_much_input(self):
        _, err = self.bytes("exec", "-i", "web", "--", "cat", stdin=bytes((16 << 20) + 1), status=125)
        self.assertIn("ruche cp", self.one_line(err.decode()))
        self.assertEqual(self.agent.calls, [])

    def test_words_that_are_no_text(self):
        _, err = self.bytes("exec", "web", "--", "echo", b"\xff\xfe", status=125)
        self.assertIn("UTF-8", err.decode())
        self.assertEqual(self.agent.calls, [])

    def test_usage(self):
        for words, reason in (((), "one machine"), (("web",), "which command"), (("web", "--"), "which command"),
                              (("--", "true"), "one machine"), (("a", "b", "--", "true"), "one machine"),
                              (("web", "ls", "-l"), "'-l'"), (("--timeout", "x", "web", "--", "true"), "'x'"),
                              (("--timeout", "0", "web", "--", "true"), "'0'"), (("--bogus", "web", "--", "true"), "'--bogus'"),
                              (("-t", "web", "--", "sh"), "ruche console"), (("-it", "web", "--", "sh"), "ruche console"),
                              (("-i", "--tty", "web", "--", "sh"), "ruche console")):
            with self.subTest(words=words):
                self.assertIn(reason, self.refused("exec", *words, status=2))
        self.assertEqual(self.agent.calls, [])

    def sleeper(self):
        """The process of the first command, once it is there."""
        self.wait_until(lambda: self.agent.processes)
        return next(iter(self.agent.processes))

    def test_timeout(self):
        out, err = self.ruche("exec", "--timeout", "1", "web", "--", "sh", "-c", "echo begun; exec sleep 1000", status=124)
        self.assertEqual(out, "begun\n")
        self.assertIn("'sh' was killed after 1 s", self.one_line(err))
        self.assertEqual(self.agent.processes, {})

    def test_in_time(self):
        self.assertEqual(self.ruche("exec", "--timeout", "1000", "web", "--", "echo", "x"), ("x\n", ""))

    def test_interrupted(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            p = self.popen("exec", "web", "--", "sleep", "1000")
            pid = self.sleeper()
            p.send_signal(number)
            self.assertEqual(p.wait(30), 128 + number)
            self.wait_until(lambda pid=pid: not alive(pid))
            self.agent.processes.clear()

    def test_long_commands_leave_others_their_turn(self):
        wait = f"while ! [ -e {self.path('go')} ]; do sleep 0.1; done"
        long = [self.popen("exec", "web", "--", "sh", "-c", f"{wait}; echo {i}") for i in range(4)]
        self.wait_until(lambda: len(self.agent.processes) == 4)
        self.assertEqual(self.exec("echo", "now")[0], "now\n")
        self.assertTrue(all(p.poll() is None for p in long))
        self.write("go", "")
        for i, p in enumerate(long):
            self.assertEqual(p.communicate(timeout=60), (f"{i}\n", ""))
        self.assertEqual(self.agent.turned_away, 0)

    def test_many_at_once(self):
        several = [self.popen("exec", "web", "--", "echo", str(i)) for i in range(20)]
        for i, p in enumerate(several):
            self.assertEqual(p.communicate(timeout=60), (f"{i}\n", ""))
        self.assertEqual(self.agent.turned_away, 0)

    def test_cut_output(self):
        whole = self.agent.guest_exec_status
        self.agent.replies["guest-exec-status"] = lambda pid: {**whole(pid), "out-truncated": True}
        for status, gives in ((0, 125), (5, 5)):
            out, err = self.exec("sh", "-c", f"sleep 0.2; echo x; exit {status}", status=gives)
            self.assertEqual(out, "x\n")
            self.assertIn("first 16 MiB", self.one_line(err))

    def test_no_such_command(self):
        self.agent.missing = ("nosuch",)
        self.assertIn("No such file", self.refused_exec("nosuch"))

    def test_what_an_earlier_conversation_left(self):
        for greeting in (b'{"return": {}}\n', b'{"return": ', b"\x00" * 5000000, MARK + b"{}\n", MARK + b"[1\n" + MARK + b'{"return": 3}\n'):
            self.agent.greeting = greeting
            self.assertEqual(self.exec("echo", "x")[0], "x\n")


class Without(Named):
    """No agent to talk to: each has its own reason and next step."""

    def test_reasons(self):
        self.create()
        self.assertIn("ruche start web", self.refused("exec", "web", "--", "true"))
        self.assertIn("no machine 'x'", self.refused("exec", "x", "--", "true"))
        self.ruche("start", "web", FAKE_NO_AGENT="1")
        self.assertRegex(self.refused("exec", "web", "--", "true"), "no guest agent runs.*qemu-guest-agent")
        self.assertEqual(self.list()["web"]["addresses"], [])
        self.ruche("pause", "web")
        self.assertIn("ruche resume web", self.refused("exec", "web", "--", "true"))
        self.assertEqual(self.ruche("resume", "web"), ("", ""))
        self.ruche("stop", "web")

    def test_own_port(self):
        """A device of the user's has it, so there is no second one."""
        self.create("web", "--device", "virtio-console,port1=org.qemu.guest_agent.0:unix:/x")
        self.ruche("start", "web")
        self.assertNotIn("--agent", self.log()[-1])
        self.assertIn("--device", self.refused("exec", "web", "--", "true"))

    def test_nobody_at_the_socket(self):
        self.create()
        self.ruche("start", "web")
        self.assertIn("agent.sock", self.refused("exec", "web", "--", "true"))

    def test_long_path(self):
        self.env["XDG_DATA_HOME"] = self.path("x" * 100)
        self.create()
        self.ruche("start", "web")
        web = self.inspect()
        self.assertEqual(web["agent"], f"{self.runtime}/ruche/{web['uuid']}.agent.sock")
        agent = FakeAgent(web["agent"])
        self.addCleanup(agent.close)
        self.assertEqual(self.ruche("exec", "web", "--", "echo", "x")[0], "x\n")
        self.ruche("stop", "web")
        self.assertEqual(self.sockets(), [])




class Hostile(Agent):
    """Whatever comes from the guest: one line with the cause, within the limit of memory, and an end."""

    def test_replies(self):
        for reply in (b"\n", b"x\n", b"[]\n", b"1\n", b'"return"\n', b"{}\n", b'{"return": \n', b'{"error": 1}\n', b'{"error": {}}\n',
                      b'{"error": {"desc": 1}}\n', b"\xff\xff\n", b"\x00\n", b'{"return": "\xff"}\n', b"[" * 100000 + b"\n",
                      b'{"return": [' + b"[]," * 300000 + b"[]]}\n", b'{"return": {}}\n', b'{"return": {"pid": "1"}}\n',
                      b'{"return": {"pid": -1}}\n', b'{"return": {"pid": 1e99}}\n', b'{"return": []}\n'):
            with self.subTest(reply=reply[:40]):
                self.agent.replies["guest-exec"] = reply
                self.refused_exec()

    def test_ends_of_commands(self):
        data = base64.b64encode(b"text").decode()
        for value in ({"exited": True}, {"exited": True, "exitcode": "0"}, {"exited": True, "exitcode": 0, "out-data": 5},
                      {"exited": True, "exitcode": 0, "out-data": "x"}, {"exited": True, "exitcode": 0, "out-data": "===="},
                      {"exited": True, "exitcode": 0, "out-data": data, "err-data": data[:-1]},
                      {"exited": True, "exitcode": 0, "out-data": "\n" + data}, {"exited": True, "exitcode": 0, "err-data": [data]}):
            with self.subTest(value=value):
                self.agent.replies["guest-exec-status"] = lambda pid, value=value: value
                self.refused_exec()

    def test_odd_statuses(self):
        for value, status in (({"exitcode": 1 << 40}, 0), ({"exitcode": -1}, 255), ({"signal": 1 << 33, "exitcode": 1}, 128)):
            self.agent.replies["guest-exec-status"] = lambda pid, value=value: {"exited": True, **value}
            self.exec("true", status=status)

    def test_no_end_of_a_line(self):
        for size in (2 << 20, 200 << 20):
            self.agent.replies["guest-exec"] = b"x" * size
            self.assertIn("longer than any", self.refused_exec())

    def test_no_end_of_output(self):
        self.agent.replies["guest-exec-status"] = lambda pid: b'{"return": {"exited": true, "exitcode": 0, "out-data": "' + \
            b"QUJD" * (50 << 18)
        self.assertIn("longer than any", self.refused_exec())

    def test_commands_to_the_terminal(self):
        text = "\x1b]0;mine\x07\x1b[2J\r\n\u009b31m\x7f\u00e9" + "x" * 5000
        def refuse(**_):
            raise Refusal(text)
        self.agent.replies["guest-exec"] = refuse
        err = self.refused_exec()
        self.assertIn("\\x1b]0;mine\\x07\\x1b[2J\\x0d\\x0a", err)
        self.assertIn("\u00e9xxx", err)
        self.assertLess(len(err), 500)

    def test_mute(self):
        self.agent.mute = True
        self.assertIn("does not answer", self.refused_exec())
        self.assertEqual(self.list()["web"]["addresses"], [])

    def test_endless_noise_where_a_conversation_begins(self):
        self.agent.replies["guest-sync-delimited"] = b"noise" * 100000
        self.agent.mute = False
        self.agent.greeting = b"noise" * 10000000
        self.assertEqual(self.list()["web"]["addresses"], [])

    def test_wrong_conversation(self):
        self.agent.replies["guest-sync-delimited"] = MARK + b'{"return": 5}\n'
        self.assertEqual(self.list()["web"]["addresses"], [])
        self.assertEqual(self.agent.calls, [])

    def test_addresses(self):
        self.assertEqual(self.list()["web"]["addresses"], ["10.0.2.15", "fec0::5"])
        self.assertEqual(self.inspect()["addresses"], ["10.0.2.15", "fec0::5"])
        self.assertRegex(self.ruche("ls")[0], r"(?m)^web +running .* 10\.0\.2\.15 +/k$")
        good = {"ip-address": "192.168.1.7"}
        for value, found in (([{"ip-addresses": [{"ip-address": "1.2.3.4\x1b[2J"}, good]}], ["192.168.1.7"]), ({}, []), ([], []),
                             ([1, None, {"ip-addresses": 5}, {"ip-addresses": [1, {}, {"ip-address": 7}, good]}], ["192.168.1.7"]),
                             ([{"ip-addresses": [{"ip-address": f"10.0.0.{i}"} for i in range(200)]}],
                              [f"10.0.0.{i}" for i in range(32)])):
            self.agent.replies["guest-network-get-interfaces"] = lambda value=value: value
            self.assertEqual(self.list()["web"]["addresses"], found)


class Time(Agent):
    def test_set_after_a_halt(self):
        self.ruche("pause", "web")
        before = time.time_ns()
        self.assertEqual(self.ruche("resume", "web"), ("", ""))
        self.assertEqual(self.agent.names(), ["guest-set-time"])
        self.assertTrue(before <= self.agent.calls[0][1]["time"] <= time.time_ns())

    def test_only_its_clock_counts(self):
        def refuse(**_):
            raise Refusal("hwclock failed")
        self.agent.replies["guest-set-time"] = refuse
        self.assertEqual(self.ruche("resume", "web"), ("", ""))
        self.agent.replies["guest-get-time"] = lambda: 5
        out, err = self.ruche("resume", "web")
        self.assertEqual(out, "")
        self.assertRegex(self.one_line(err), "old time.*hwclock failed")


class Restored(Named):
    fake = "echo"

    def test_time_is_set(self):
        os.mkdir(self.runtime + "/ruche", 0o700)
        agent = FakeAgent(self.runtime + "/ruche/back.agent")
        self.addCleanup(agent.close)
        before = time.time_ns()
        self.ruche("run", "--detach", "--name", "back", "--restore", "/saved")
        self.assertIn(f"--agent unix:{self.runtime}/ruche/back.agent", self.log()[-1])
        self.wait_until(lambda: agent.calls)
        self.assertEqual(agent.names(), ["guest-set-time"])
        self.assertTrue(before <= agent.calls[0][1]["time"] <= time.time_ns())

    def test_without_an_agent(self):
        self.ruche("run", "--detach", "--name", "back", "--restore", "/saved")
        self.ruche("run", "--detach", "--name", "new", "--kernel", "/k")
        self.assertNotIn("--agent", self.log()[-1])


def program_of(pid):
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:  # it has ended
        return None


class Freeze(Agent):
    def freeze(self, limit_ms=600000):
        p = subprocess.Popen([FREEZE, "web", str(limit_ms)], env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(p.communicate)
        self.assertEqual(p.stdout.readline(), "frozen\n")
        self.assertTrue(self.agent.frozen)
        return p

    def marks(self):
        return [name for name in os.listdir(self.inspect()["folder"]) if "frozen" in name]

    def thawers(self):
        return [pid for pid in processes(self.folder) if program_of(pid) == os.path.realpath(FREEZE)]

    def test_and_thaw(self):
        p = self.freeze()
        self.assertEqual(p.communicate("\n", timeout=60)[0], "thawed\n")
        self.assertEqual(self.agent.names(), ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"])
        self.assertEqual(self.marks(), [])
        self.assertEqual(self.thawers(), [])

    def test_killed(self):
        p = self.freeze()
        p.kill()
        self.wait_until(lambda: not self.agent.frozen)
        self.wait_until(lambda: not self.marks())
        self.wait_until(lambda: not self.thawers())
        self.assertEqual(p.stdout.read(), "")  # nobody else holds it

    def test_too_long(self):
        p = self.freeze(100)
        self.wait_until(lambda: not self.agent.frozen)
        out, _ = p.communicate("\n", timeout=60)
        self.assertEqual(p.returncode, 1)
        self.assertIn("thawed before", out)
        self.wait_until(lambda: not self.marks())

    def test_both_killed(self):
        p = self.freeze()
        self.exec("true")  # frozen on purpose, so nobody else thaws
        self.assertTrue(self.agent.frozen)
        thawer, = (pid for pid in self.thawers() if pid != p.pid)
        os.kill(thawer, signal.SIGSTOP)
        p.kill()
        p.wait()
        os.kill(thawer, signal.SIGKILL)
        self.wait_until(lambda: not self.thawers())
        self.assertTrue(self.agent.frozen)
        self.exec("true")
        self.assertFalse(self.agent.frozen)
        self.assertEqual(self.marks(), [])

    def test_agent_that_is_away_for_a_while(self):
        p = self.freeze()
        def refuse():
            raise Refusal("not now")
        self.agent.replies["guest-fsfreeze-thaw"] = refuse
        p.kill()
        self.wait_until(lambda: self.agent.names().count("guest-fsfreeze-thaw") >= 2)
        del self.agent.replies["guest-fsfreeze-thaw"]
        self.wait_until(lambda: not self.agent.frozen)

    def refused_freeze(self, reason):
        done = subprocess.run([FREEZE, "web", "1000"], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, "freeze the file systems.*" + reason)

    def test_refused(self):
        def refuse():
            raise Refusal("not today")
        self.agent.replies["guest-fsfreeze-freeze"] = refuse
        self.refused_freeze("not today")
        self.assertEqual(self.marks(), [])

    def test_twice(self):
        p = self.freeze()
        self.refused_freeze("another command")
        self.assertEqual(self.marks(), ["agent.frozen"])
        self.assertTrue(self.agent.frozen)
        self.assertEqual(p.communicate("\n", timeout=60)[0], "thawed\n")
        self.assertEqual(self.marks(), [])


unittest.main(verbosity=2)
