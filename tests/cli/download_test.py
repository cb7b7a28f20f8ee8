#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`ruche image import URL` against servers of all kinds: good ones, and those that break off, change their mind or lie."""
import hashlib
import http.server
import os
import signal
import subprocess
import threading
import unittest

from harness import RUCHE, Case, Terminal

DATA = bytes(range(256)) * 8192  # a raw disk of 2 MiB


class Server(http.server.ThreadingHTTPServer):
    """Serves DATA at any path, as `how` says. The requests are in `asked`: (path, where its range begins or None)."""
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []
        self.data = DATA
        self.tag = '"one"'
        self.piece = None  # most bytes of an answer, before it breaks off; None: all of it
        self.ranges = True
        self.extra = 0  # bytes that are announced and never come
        self.status = None
        self.wait = threading.Event()
        self.wait.set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/disk"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request, client_address):
        """A client that went is part of the test."""


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, begin = self.server, None
        if self.headers.get("Range") and server.ranges:
            begin = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        server.asked.append((self.path, begin))
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/disk")
            self.end_headers()
            return
        if server.status:
            self.send_error(server.status)
            return
        if begin is not None and self.headers.get("If-Range") != server.tag:
            begin = None
        size = len(server.data) + server.extra
        if begin is not None and begin >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.end_headers()
            return
        self.send_response(200 if begin is None else 206)
        self.send_header("Content-Length", str(size - (begin or 0)))
        if begin is not None:
            self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        body = server.data[begin or 0:]
        self.wfile.write(body[:server.piece])
        self.wfile.flush()
        server.wait.wait(60)


class Download(Case):
    def setUp(self):
        super().setUp()
        self.server = Server()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.addCleanup(self.server.wait.set)
        for name in ("http_proxy", "https_proxy", "all_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            self.env.pop(name, None)
        self.kernel = self.write("kernel", "kernel\n")
        self.sum = hashlib.sha256(DATA).hexdigest()

    def words(self, url=None, *more):
        return ["image", "import", "small", url or self.server.url, "--format", "raw", "--kernel", self.kernel, "--initrd",
                self.kernel, *more]

    def bring(self, url=None, *more, status=0):
        return self.ruche(*self.words(url, *more), status=status)[1]

    def check(self):
        """The image has the data, and nothing else is left."""
        disk = self.path("data/ruche/images/small/disk.qcow2")
        raw = self.write("raw", "")
        subprocess.run(["qemu-img", "convert", "-O", "raw", disk, raw], check=True)
        with open(raw, "rb") as f:
            self.assertEqual(f.read(), self.server.data)
        self.assertEqual(self.left(), [])
        self.assertEqual(os.listdir(self.path("data/ruche/images")), ["small"])

    def left(self):
        return sorted(os.listdir(self.path("data/ruche/downloads")))

    def refused(self, reason, url=None, *more):
        err = self.bring(url, *more, status=125)
        self.assertIn(reason, self.one_line(err.splitlines(keepends=True)[-1]))
        self.assertFalse(os.path.exists(self.path("data/ruche/images/small")))

    def test_whole(self):
        err = self.bring(None, "--sha256", self.sum.upper())
        self.assertRegex(err, r"\A(download: \d+0%, .* of 2\.0 MiB\n)*download: 100%, 2\.0 MiB of 2\.0 MiB\n"
                         r"download: done in \d:\d\d\n\Z")
        self.check()
        self.assertIn("imported from " + self.server.url, self.ruche("image", "ls")[0])

    def test_bar_on_a_terminal(self):
        terminal = Terminal(self.words(), self.env)
        self.addCleanup(terminal.close)
        terminal.expect("] 2.0 MiB of 2.0 MiB")
        terminal.expect("done in")
        self.assertEqual(terminal.wait(), 0)

    def test_redirection(self):
        self.bring(self.server.url.replace("/disk", "/moved"), "--sha256", self.sum)
        self.check()

    def test_file(self):
        with open(self.path("a disk"), "wb") as f:
            f.write(DATA)
        self.bring("file://" + self.path("a%20disk"), "--sha256", self.sum)
        self.check()

    def test_server_that_breaks_off(self):
        self.server.piece = 700000
        self.bring(None, "--sha256", self.sum)
        self.assertEqual([begin for _, begin in self.server.asked], [None, 700000, 1400000])
        self.check()

    def test_breaks_off_and_names_no_version(self):
        """Then the rest may be of another file."""
        self.server.piece, self.server.tag = 1500000, None
        self.refused("transfer closed")
        self.assertEqual({begin for _, begin in self.server.asked}, {None})

    def test_breaks_off_and_knows_no_ranges(self):
        self.server.piece, self.server.ranges = 1500000, False
        threading.Timer(1, setattr, (self.server, "piece", None)).start()
        self.bring(None, "--sha256", self.sum)
        self.check()

    def test_announces_more_than_there_is(self):
        self.server.extra = 1000
        self.refused("1000 bytes remaining")
        self.assertLess(len(self.server.asked), 10)

    def interrupted(self):
        """A command that is killed in the middle of the file."""
        self.server.piece = 1000000
        self.server.wait.clear()
        p = subprocess.Popen([RUCHE, *self.words()], env=self.env, stderr=subprocess.PIPE, text=True)
        self.assertIn("download: 40%", p.stderr.readline())
        # Another one at the same time is refused.
        self.refused("another command is downloading it")
        p.send_signal(signal.SIGKILL)
        p.communicate()
        self.server.piece = None
        self.server.wait.set()
        self.server.asked.clear()

    def test_next_command_goes_on(self):
        self.interrupted()
        self.bring(None, "--sha256", self.sum)
        (_, begin), = self.server.asked
        self.assertGreater(begin, 0)  # what curl had in its hands is lost
        self.check()

    def test_file_has_changed_meanwhile(self):
        self.interrupted()
        self.server.data, self.server.tag = DATA[::-1], '"two"'
        self.bring()
        self.check()

    def test_file_has_got_shorter_meanwhile(self):
        self.interrupted()
        self.server.data = DATA[:512000]
        self.bring()
        self.check()

    def test_wrong_sum(self):
        self.refused(f"its SHA-256 is {self.sum}", None, "--sha256", "0" * 64)
        self.assertEqual(self.left(), [])
        with open(self.path("disk"), "wb") as f:
            f.write(DATA)
        self.refused(f"its SHA-256 is {self.sum}", self.path("disk"), "--sha256", "0" * 64)

    def test_no_such_thing(self):
        self.server.status = 404
        self.refused("error: 404")
        self.assertEqual([begin for _, begin in self.server.asked], [None])
        self.refused("file://", "file:///nonexistent/disk")
        self.refused("resolve host", "http://name.invalid/disk")
        self.server.shutdown()
        self.server.server_close()
        self.refused("connect", self.server.url)
        self.assertEqual(self.left(), [])

    def test_kernel_is_looked_at_first(self):
        self.kernel = self.path("none")
        self.refused("open '" + self.kernel + "'")
        self.assertEqual(self.server.asked, [])

    def test_usage(self):
        for value in ("abc", "g" * 64, "0" * 65):
            self.one_line(self.bring(None, "--sha256", value, status=2))


unittest.main(verbosity=2)
