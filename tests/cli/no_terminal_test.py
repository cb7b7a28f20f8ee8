#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Standard input, output and error that are no terminal, closed, full, or gone, with the real ruche-vmm."""
import os
import re
import signal
import subprocess
import time
import unittest

from harness import RUCHE, Real, contents, processes, table, without_note

LOST = "write to standard output: "
BAD = LOST + "Bad file descriptor"
FULL = LOST + "No space left on device"


@table(
    # What runs, which of descriptors 0, 1, 2 are closed; status, output, reason.
    ("guest that speaks", "run --kernel {off}", "", 0, "hello\n", ""),
    ("no input", "run --kernel {off}", "0", 0, "hello\n", ""),
    ("no output", "run --kernel {off}", "1", 125, "", BAD),
    ("no errors", "run --kernel {off}", "2", 0, "hello\n", ""),
    ("no input and output", "run --kernel {off}", "01", 125, "", BAD),
    ("no input and errors", "run --kernel {off}", "02", 0, "hello\n", ""),
    ("no output and errors", "run --kernel {off}", "12", 125, "", ""),
    ("nothing", "run --kernel {off}", "012", 125, "", ""),
    ("nothing for a guest that is quiet", "run --kernel {quiet}", "012", 0, "", ""),
    ("nothing for a serial line elsewhere", "run --kernel {off} --serial none", "012", 0, "", ""),
    ("nothing and no kernel", "run --kernel {missing}", "012", 125, "", ""),
    ("no input and no kernel", "run --kernel {missing}", "01", 125, "", "No such file"),
    ("nothing and wrong usage", "run --bogus", "012", 2, "", ""),
    ("detached without output", "run --kernel {kernel} --detach", "1", 125, "", BAD),
    ("detached without anything", "run --kernel {kernel} --detach", "012", 125, "", ""),
    ("help without output", "help", "1", 125, "", BAD),
    ("version without anything", "version", "012", 125, "", ""),
    ("list of images without output", "image ls --json", "1", 125, "", BAD),
    ("list of devices without output", "run --device help", "1", 125, "", BAD),
    ("list of devices without anything", "run --device help", "012", 125, "", ""),
)
class Closed(Real):
    def row(self, command, closed, status, output, reason):
        words = self.words(command)
        before = contents(self.folder)

        def close():
            for fd in closed:
                os.close(int(fd))
        done = subprocess.run([RUCHE, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                              check=False, env=self.env, preexec_fn=close)
        self.assertEqual((done.returncode, done.stdout), (status, output), done.stderr)
        err = without_note(done.stderr)
        if reason:
            self.assertIn(reason, self.one_line(err))
        else:
            self.assertEqual(err, "")
        self.unchanged(before)


@table(
    ("guest that speaks", "run --kernel {off}"),
    ("guest that does not stop speaking", "run --kernel {flood}"),
    ("detached", "run --kernel {kernel} --detach"),
    ("help", "help"),
    ("list of devices", "run --device help"),
    ("list of images", "image ls --json"),
)
class FullDevice(Real):
    def row(self, command):
        words = self.words(command)
        before = contents(self.folder)
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([RUCHE, *words], stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True,
                                  timeout=60, check=False, env=self.env)
        self.assertEqual(done.returncode, 125)
        self.assertIn(FULL, self.one_line(without_note(done.stderr)))
        self.unchanged(before)


class Pipes(Real):
    def flood(self):
        """A machine that has filled the pipe behind its standard output."""
        p = self.start("run --kernel {flood}", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.assertTrue(os.read(p.stdout.fileno(), 1))
        time.sleep(1)
        return p

    def test_full_pipe_that_is_closed(self):
        before = contents(self.files.folder)
        p = self.flood()
        p.stdout.close()
        self.assertEqual(p.wait(30), 125)
        self.assertRegex(without_note(p.stderr.read().decode()), r"\Aruche: write to standard output: Broken pipe\n\Z")
        self.assertEqual(set(contents(self.files.folder)) - set(before), {"flood"})
        self.assertEqual(processes(self.folder), [])

    def test_full_pipe_that_nobody_reads(self):
        for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)):
            p = self.flood()
            p.send_signal(number)
            self.assertEqual(p.wait(30), status)
            self.assertEqual(processes(self.folder), [])
            self.assertEqual(os.listdir(self.runtime + "/ruche"), [])

    def test_full_pipe_of_a_machine_that_ended(self):
        """It waits for its reader, but not when it is told to end."""
        p = self.flood()
        with open(f"/proc/{p.pid}/task/{p.pid}/children", encoding="ascii") as f:
            os.kill(int(f.read().split()[0]), signal.SIGTERM)
        time.sleep(1)
        self.assertIsNone(p.poll())
        p.terminate()
        self.assertEqual(p.wait(30), 143)

    def test_input_that_ends(self):
        for data in (b"", b"\x1dq", b"x" * 1000000):
            with self.subTest(bytes=len(data)):
                out, err = self.ruche(*self.words("run --kernel {off}"), stdin=data.decode())
                self.assertEqual((out, err), ("hello\n", ""))

    def test_no_controlling_terminal(self):
        done = subprocess.run(["setsid", "--wait", RUCHE, *self.words("run --kernel {off}")], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60, check=False, env=self.env)
        self.assertEqual((done.returncode, done.stdout, without_note(done.stderr)), (0, "hello\n", ""))

    def test_detached(self):
        out, err = self.ruche(*self.words("run --kernel {kernel} --detach --name bg"))
        self.assertEqual(err, "")
        self.assertTrue(re.match(r"name +bg\n", out))
        for pid in processes(self.folder):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while processes(self.folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(processes(self.folder), [])
        self.assertEqual(os.listdir(self.runtime + "/ruche"), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
