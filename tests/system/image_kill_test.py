#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A build of the image `debian` that is killed leaves no mount behind on the host: a mount in the folder of images would
lead whoever empties that folder into the host's own trees."""
import os
import signal
import subprocess
import tempfile
import time
import unittest

RUCHE = os.environ["RUCHE"]
PATIENCE = 240.0  # seconds for the package lists and the packages before the new root is there


def mounts(pid):
    """What process `pid` sees mounted in a root that mmdebstrap makes; nothing once the process is gone."""
    try:
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as f:
            return [line.split()[4] for line in f if "/mmdebstrap." in line.split()[4]]
    except OSError:
        return []


def session(sid):
    """The living processes of session `sid`."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getsid(int(pid)) == sid:
                found.append(int(pid))
        except ProcessLookupError:
            pass
    return found


class KilledBuild(unittest.TestCase):
    def test_no_mount_is_left(self):
        with tempfile.TemporaryDirectory(prefix="ruche-test-") as folder:
            before = mounts("self")
            p = subprocess.Popen([RUCHE, "image", "build", "debian"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 env={**os.environ, "XDG_DATA_HOME": folder}, start_new_session=True)
            deadline = time.monotonic() + PATIENCE
            while p.poll() is None and time.monotonic() < deadline:
                if any(mounts(pid) for pid in session(p.pid)):
                    break
                time.sleep(0.01)
            self.assertIsNone(p.poll(), f"the build ended: {p.stdout.read() if p.poll() is not None else ''}")
            self.assertLess(time.monotonic(), deadline, "the build mounted nothing in its new root")
            while (pids := session(p.pid)):
                for pid in pids:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                time.sleep(0.02)
                p.poll()
            p.communicate()
            left = [mount for mount in mounts("self") if mount not in before]
            for mount in reversed(left):  # before the folder is emptied, or that would reach into them
                subprocess.run(["umount", mount], check=True)
            self.assertEqual(left, [])


if __name__ == "__main__":
    unittest.main()
