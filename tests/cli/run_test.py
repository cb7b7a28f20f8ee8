#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`ruche run` against a stand-in for the machine: options, terminal, escape keys, signals, exit statuses."""
import os
import signal
import socket
import subprocess
import time
import unittest

from harness import RUCHE, Case, Terminal

ESCAPE = b"\x1d"


class Pipes(Case):
    def run_kernel(self, *options, **more):
        return self.ruche("run", "--kernel", "k", *options, **more)

    def test_input_arrives_and_status_is_the_machines(self):
        for status in (0, 1, 2, 125, 126, 130, 255):
            out, err = self.run_kernel(stdin=f"hi\nexit {status}\n", status=status)
            self.assertEqual(out, f"hello\nhi\nexit {status}\nbye\n")
            self.assertEqual(err, "")

    def test_end_of_input_does_not_end_the_machine(self):
        with subprocess.Popen([RUCHE, "run", "--kernel", "k"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              env=self.env) as p:
            self.assertEqual(p.stdout.readline(), b"hello\r\n")
            time.sleep(0.3)
            self.assertIsNone(p.poll())
            p.send_signal(signal.SIGINT)
            self.assertEqual(p.wait(20), 130)

    def test_escape_key_is_data_in_a_pipe(self):
        out, _ = self.run_kernel(stdin="\x1dq\nexit 0\n")
        self.assertIn("\x1dq\n", out)

    def test_large_input_arrives_whole(self):
        data = "".join(f"{i:063d}\n" for i in range(8000))
        out, _ = self.run_kernel(stdin=data + "exit 0\n")
        self.assertEqual(out, "hello\n" + data + "exit 0\nbye\n")

    def test_output_of_a_machine_that_ended_is_not_lost(self):
        out, _ = self.run_kernel(stdin="flood\n")
        self.assertEqual(out.count("x"), 1000000)

    def test_slow_reader_gets_all(self):
        """All buffers are full when the machine ends."""
        with subprocess.Popen([RUCHE, "run", "--kernel", "k"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env=self.env) as p:
            p.stdin.write(b"flood\n")
            p.stdin.flush()
            count = 0
            while True:
                time.sleep(0.001 if count % 50 else 0.1)
                data = p.stdout.read1(10000)
                count += data.count(b"x")
                if not data:
                    break
            self.assertEqual(count, 1000000)
            self.assertEqual(p.wait(20), 0)

    def test_options_go_on_unchanged(self):
        self.run_kernel("--engine=bt", "--cpus", "2", "--disk", "a,format=raw", "--disk=b", "--device",
                        "virtio-rng,id=r", "--cmdline", "console=ttyS0 x=y", "--no-reboot", "--name", "m",
                        stdin="exit 0\n")
        line = self.log()[0]
        for words in ("--engine bt", "--cpus 2", "--disk a,format=raw", "--disk b", "--device virtio-rng,id=r",
                      "--cmdline console=ttyS0 x=y", "--no-reboot", "--name m", "--kernel k"):
            self.assertIn(" " + words + " ", " " + line + " ")
        self.assertIn(f"--control {self.runtime}/ruche/m.sock", line)
        self.assertEqual(os.listdir(self.runtime + "/ruche"), [])

    def test_device_help_comes_from_the_machine(self):
        out, _ = self.ruche("run", "--device", "help")
        self.assertIn("virtio-rng", out)

    def test_failures_before_the_start(self):
        _, err = self.run_kernel(status=125, FAKE="refuse")
        self.assertEqual(self.one_line(err), "ruche: open disk 'x': No such file or directory\n")
        self.run_kernel(status=3, FAKE="silent")
        _, err = self.run_kernel(status=125, FAKE="crash")
        self.assertIn("signal 11", self.one_line(err))
        _, err = self.run_kernel(status=125, RUCHE_VMM="/nonexistent")
        self.assertIn("/nonexistent", self.one_line(err))

    def test_machine_that_ends_at_once(self):
        self.assertEqual(self.run_kernel(status=7, FAKE="brief"), ("hello\n", ""))

    def test_crash_of_the_machine(self):
        _, err = self.run_kernel(stdin="die\n", status=125)
        self.assertIn("signal 11", self.one_line(err))
        self.assertEqual(os.listdir(self.runtime + "/ruche"), [])

    def test_wrong_usage(self):
        for arguments in ([], ["--keep", "--kernel", "k"], ["--bogus"], ["--cpus"], ["a", "b"], ["-x"],
                          ["--kernel", "k", "--no-reboot=yes"]):
            _, err = self.ruche("run", *arguments, status=2)
            self.one_line(err)
        for arguments in ([], ["bogus"], ["image"], ["image", "bogus"], ["image", "build"], ["image", "ls", "x"],
                          ["image", "build", "x", "--size", "0"], ["image", "build", "x", "--mirror"],
                          ["version", "x"], ["help", "x"], ["help", "run", "image"]):
            _, err = self.ruche(*arguments, status=2)
            self.one_line(err)

    def test_bad_names_and_folders(self):
        _, err = self.run_kernel("--name", "../x", status=2)
        self.one_line(err)
        _, err = self.ruche("run", "nosuch", status=125)
        self.assertIn("nosuch", self.one_line(err))
        os.mkdir(self.runtime + "/ruche")
        os.chmod(self.runtime + "/ruche", 0o777)
        _, err = self.run_kernel(status=125)
        self.assertIn("not yours alone", self.one_line(err))

    def test_help(self):
        out, _ = self.ruche("help")
        for verb in ("run", "image", "doctor", "version", "help"):
            self.assertIn(f"  {verb} ", out)
            text, _ = self.ruche(verb, "--help")
            self.assertTrue(text.startswith(f"usage: ruche {verb}"), text)
            self.assertEqual(self.ruche("help", verb)[0], text)
        self.assertRegex(self.ruche("--version")[0], r"\Aruche \d")

    def test_output_that_goes_nowhere(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            p = subprocess.run([RUCHE, "help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(p.returncode, 125)
        self.one_line(p.stderr)

    def test_lost_reader_ends_the_machine(self):
        with subprocess.Popen([RUCHE, "run", "--kernel", "k"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=self.env) as p:
            p.stdout.readline()
            p.stdout.close()
            p.stdin.write(b"more\n")
            p.stdin.flush()
            self.assertEqual(p.wait(20), 125)
            self.assertIn(b"standard output", p.stderr.read())

    def test_signals(self):
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
            with subprocess.Popen([RUCHE, "run", "--kernel", "k"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  env=self.env) as p:
                p.stdout.readline()
                p.send_signal(number)
                self.assertEqual(p.wait(20), status)

    def test_signal_before_the_machine_runs(self):
        """Counts, though the machine comes to run before it has heard of it."""
        for options in ([], ["--detach"]):
            for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
                with subprocess.Popen([RUCHE, "run", "--kernel", "k", *options], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, env=dict(self.env, FAKE="slow")) as p:
                    while not os.path.exists(self.path("log")):
                        time.sleep(0.02)
                    p.send_signal(number)
                    self.assertEqual(p.wait(20), status)
                    self.assertEqual(p.stdout.read(), b"")
                os.unlink(self.path("log"))

    def test_deaf_machine_is_ended_by_force(self):
        env = dict(self.env, FAKE="deaf")
        with subprocess.Popen([RUCHE, "run", "--kernel", "k"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env=env) as p:
            p.stdout.readline()
            p.send_signal(signal.SIGINT)
            self.assertEqual(p.wait(30), 130)
        self.assertIn("SIGTERM", self.log())

    def test_machine_does_not_outlive_a_killed_ruche(self):
        with subprocess.Popen([RUCHE, "run", "--kernel", "k"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env=self.env) as p:
            p.stdout.readline()
            p.kill()
            p.wait()
            deadline = time.monotonic() + 10
            while "SIGTERM" not in self.log() and time.monotonic() < deadline:
                time.sleep(0.05)
        self.assertIn("SIGTERM", self.log())

    def test_detach(self):
        out, _ = self.ruche("run", "--kernel", "k", "--detach", "--name", "bg")
        control = f"{self.runtime}/ruche/bg.sock"
        self.assertEqual(out, f"name     bg\ncontrol  {control}\nserial   unix:{self.runtime}/ruche/bg.serial\n")
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(control)
            f = s.makefile("rw")
            f.readline()
            f.write('{"execute": "quit"}\n')
            f.flush()
            f.readline()


class OnTerminal(Case):
    def start(self, *options, **env):
        terminal = Terminal(["run", "--kernel", "k", *options], dict(self.env, **env))
        self.addCleanup(terminal.close)
        terminal.expect("hello")
        return terminal

    def check_end(self, terminal, status):
        self.assertEqual(terminal.wait(), status)
        self.assertTrue(terminal.restored())

    def test_raw_while_it_runs(self):
        t = self.start()
        self.assertTrue(t.is_raw())
        t.send(b"\x03\x1a\x1c keys\r")
        t.expect("\x03\x1a\x1c keys")
        t.send(b"exit 5\r")
        self.check_end(t, 5)

    def test_escape_keys(self):
        t = self.start()
        t.send(ESCAPE + b"h")
        t.expect("power button")
        t.send(ESCAPE + b"?")
        t.expect("power button")
        t.send(ESCAPE + b"c")
        t.expect("\x1d")
        t.send(ESCAPE + b"r")
        t.expect("reset")
        t.send(ESCAPE + b"p")
        t.expect("pressed the power button")
        t.send(ESCAPE + b"q")
        self.check_end(t, 0)
        self.assertEqual(self.log()[1:], ["qmp_capabilities", "system_reset", "qmp_capabilities", "system_powerdown",
                                          "qmp_capabilities", "quit"])

    def test_escape_key_works_on_a_deaf_machine(self):
        t = self.start(FAKE="deaf")
        for _ in range(60):
            t.send(b"x" * 4000)
        t.send(ESCAPE + b"q")
        self.assertEqual(t.wait(), 128 + signal.SIGKILL)
        self.assertTrue(t.restored())

    def test_crash_gives_the_terminal_back(self):
        t = self.start()
        t.send(b"die\r")
        self.check_end(t, 125)
        self.assertIn("signal 11", t.text)

    def test_signals_give_the_terminal_back(self):
        for number, status in ((signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130),
                               (signal.SIGSEGV, -signal.SIGSEGV), (signal.SIGABRT, -signal.SIGABRT)):
            t = self.start()
            t.kill(number)
            self.check_end(t, status)

    def test_suspend_and_resume(self):
        t = self.start()
        t.kill(signal.SIGTSTP)
        t.wait_state("T")
        self.assertTrue(t.restored())
        t.kill(signal.SIGCONT)
        deadline = time.monotonic() + 10
        while not t.is_raw() and time.monotonic() < deadline:
            time.sleep(0.02)
        t.send(b"after\r")
        t.expect("after")
        t.send(b"exit 0\r")
        self.check_end(t, 0)

    def test_messages_of_the_machine_keep_to_the_left(self):
        t = self.start()
        t.send(b"complain\r")
        t.expect("warning: something\r\n")
        t.send(b"exit 0\r")
        self.check_end(t, 0)

    def test_serial_elsewhere_leaves_the_terminal_alone(self):
        terminal = Terminal(["run", "--kernel", "k", "--serial", "none"], self.env)
        self.addCleanup(terminal.close)
        deadline = time.monotonic() + 10
        while not os.path.exists(self.path("log")) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        self.assertTrue(terminal.restored())
        terminal.send(b"\x03")
        self.assertEqual(terminal.wait(), 130)


unittest.main(verbosity=2)
