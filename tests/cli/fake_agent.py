# SPDX-License-Identifier: GPL-2.0-or-later
"""Stands in for a guest with QEMU's guest agent: listens where ruche-vmm would, for one client at a time, and runs commands
and opens files on this host. What it answers to a command can be replaced, by anything."""
import base64
import json
import os
import select
import socket
import subprocess
import threading
import time

MARK = b"\xff"


class Refusal(Exception):
    pass


class FakeAgent:
    """`replies` has for a command's name the bytes to be sent instead of a reply, or a function that gives the value to be
    returned, or bytes to be sent. `greeting` is sent to whoever connects; `mute` answers nothing."""

    def __init__(self, path):
        self.replies = {}
        self.greeting = b""
        self.mute = False
        self.missing = ()  # programs that this guest does not have
        self.calls = []  # (command, arguments), all but the synchronisation
        self.conversations = 0
        self.turned_away = 0
        self.frozen = False
        self.processes = {}
        self.files = {}
        self.ended = False
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def close(self):
        self.ended = True
        self.thread.join()
        self.server.close()
        for process, *_ in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        for f in self.files.values():
            f.close()

    def names(self):
        return [name for name, _ in self.calls]

    def serve(self):
        while not self.ended:
            if select.select([self.server], [], [], 0.05)[0]:
                client, _ = self.server.accept()
                self.conversations += 1
                try:
                    with client:
                        self.converse(client)
                except OSError:  # it has left
                    pass

    def wait(self, client):
        """Until the client has sent something; False at the end."""
        while not self.ended:
            ready = select.select([self.server, client], [], [], 0.05)[0]
            if client in ready:
                return True
            if self.server in ready:
                self.server.accept()[0].close()
                self.turned_away += 1
        return False

    def converse(self, client):
        client.sendall(self.greeting)
        pending = b""
        while self.wait(client):
            data = client.recv(1 << 20)
            if not data:
                return
            pending = (pending + data).rpartition(MARK)[2]
            while b"\n" in pending:
                line, pending = pending.split(b"\n", 1)
                if not self.mute:
                    self.answer(client, json.loads(line))

    def answer(self, client, request):
        name, arguments = request["execute"], request.get("arguments", {})
        if name == "guest-sync-delimited":
            reply = MARK + json.dumps({"return": arguments["id"]}).encode() + b"\n"
            client.sendall(self.replies.get(name, reply))
            return
        self.calls.append((name, arguments))
        try:
            reply = self.replies.get(name, getattr(self, name.replace("-", "_"), None))
            value = reply(**{key.replace("-", "_"): value for key, value in arguments.items()}) if callable(reply) else reply
        except Refusal as refusal:
            value = json.dumps({"error": {"class": "GenericError", "desc": str(refusal)}}).encode() + b"\n"
        if not isinstance(value, bytes):
            value = json.dumps({"return": value}).encode() + b"\n"
        client.sendall(value)

    # The commands.

    def guest_exec(self, path, arg=(), input_data=None, capture_output=False):
        if path in self.missing:
            raise Refusal(f"Failed to execute child process “{path}” (No such file or directory)")
        try:
            process = subprocess.Popen([path, *arg], stdin=subprocess.DEVNULL if input_data is None else subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as error:
            raise Refusal(str(error)) from error
        said = []
        thread = threading.Thread(target=lambda: said.extend(process.communicate(base64.b64decode(input_data or ""))))
        thread.start()
        self.processes[process.pid] = (process, thread, said)
        return {"pid": process.pid}

    def guest_exec_status(self, pid):
        process, thread, said = self.processes[pid]
        if thread.is_alive():
            return {"exited": False}
        del self.processes[pid]
        thread.join()
        status = process.returncode
        value = {"exited": True, **({"exitcode": status} if status >= 0 else {"signal": -status})}
        for key, data in zip(("out-data", "err-data"), said):
            if data:
                value[key] = base64.b64encode(data).decode()
        return value

    def guest_file_open(self, path, mode):
        try:
            f = open(path, mode + "b")
        except OSError as error:
            raise Refusal(f"failed to open file '{path}' (mode: '{mode}'): {error.strerror}") from error
        handle = 1000 + len(self.calls)
        self.files[handle] = f
        return handle

    def guest_file_close(self, handle):
        self.files.pop(handle).close()
        return {}

    def guest_file_write(self, handle, buf_b64):
        return {"count": self.files[handle].write(base64.b64decode(buf_b64)), "eof": False}

    def guest_file_read(self, handle, count):
        data = self.files[handle].read(count)
        return {"count": len(data), "buf-b64": base64.b64encode(data).decode(), "eof": len(data) < count}

    def guest_network_get_interfaces(self):
        return [{"name": "lo", "ip-addresses": [{"ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8}]},
                {"name": "eth0", "ip-addresses": [{"ip-address": "fe80::1"}, {"ip-address": "FEC0:0::5"},
                                                  {"ip-address": "10.0.2.15"}]}]

    def guest_set_time(self, time):
        return {}

    def guest_get_time(self):
        return time.time_ns()

    def guest_fsfreeze_freeze(self):
        self.frozen = True
        return 2

    def guest_fsfreeze_thaw(self):
        was, self.frozen = self.frozen, False
        return 2 if was else 0


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
