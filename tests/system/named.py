# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of named machines with guests share."""
import json
import os
import subprocess

from machine import PATIENCE, RUCHE, Case, Console, image


class Named(Case):
    """`ruche` in a world of its own, with the image `debian` in it."""

    def setUp(self):
        super().setUp()
        self.debian = image()
        images = self.path("data/ruche/images")
        os.makedirs(images)
        os.symlink(os.path.dirname(self.debian["disk"]), images + "/debian")
        os.mkdir(self.path("run"), 0o700)
        self.env = dict(os.environ, XDG_DATA_HOME=self.path("data"), XDG_RUNTIME_DIR=self.path("run"))
        self.addCleanup(self.ruche, "stop", "--all", "--force", "--timeout", "0")

    def ruche(self, *words, status=0):
        done = subprocess.run([RUCHE, *words], env=self.env, capture_output=True, text=True, timeout=120 * PATIENCE, check=False)
        self.assertEqual(done.returncode, status, (words, done.stdout, done.stderr))
        return done.stdout

    def inspect(self, name):
        return json.loads(self.ruche("inspect", "--json", name))[0]

    def console(self, name):
        c = Console(name, self.env)
        self.addCleanup(lambda: c.process.poll() is None and c.close())
        return c
