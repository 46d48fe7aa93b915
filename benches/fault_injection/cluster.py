"""The processes of a cluster of three nodes: started, killed, asked whether they serve and whether they are equal.

A fourth one may join them, and leave, under another name each time."""

import json
import os
import signal
import socket
import subprocess
import time

from .namespaces import Namespaces

NODES = range(3)
# The place of the one that joins.
JOINER = 3
# How long a node may take until it serves again.
BACK_S = 60.0
# In namespaces the nodes have the same ports; on loopback they count up from these.
GRPC_PORT, TEXT_PORT = 50051, 6666
LOOPBACK_GRPC, LOOPBACK_TEXT = 26151, 26161


class Nodes:
    """Three nodes, each in a network namespace if they are to be cut off, else on loopback. With `slow_sync`, a library to be loaded
    first, their syncs can be made slow."""

    def __init__(self, home, binary, apart, flags=(), slow_sync=None):
        self.home, self.binary, self.flags, self.slow_sync = home, binary, flags, slow_sync
        self.running, self.down = [None] * 4, set()
        self.joiner = None
        self.namespaces = Namespaces() if apart else None
        if apart:
            self.grpc = [f"{host}:{GRPC_PORT}" for host in self.namespaces.hosts]
            self.text = [(host, TEXT_PORT) for host in self.namespaces.hosts]
        else:
            self.grpc = [f"127.0.0.1:{LOOPBACK_GRPC + n}" for n in (*NODES, JOINER)]
            self.text = [("127.0.0.1", LOOPBACK_TEXT + n) for n in (*NODES, JOINER)]

    def build(self):
        """Makes the network."""
        if self.namespaces:
            self.namespaces.build()

    def name(self, n):
        return self.joiner if n == JOINER else f"node{n + 1}"

    def log(self, n):
        return self.home / f"{self.name(n)}.log"

    def start(self, n):
        if n == JOINER:
            way = ["--join", ",".join(self.grpc[other] for other in NODES)]
        else:
            way = ["--peers", ",".join(f"node{other + 1}={self.grpc[other]}" for other in NODES if other != n)]
        host, port = self.text[n]
        command = [
            self.binary, "start", "--id", self.name(n), "--addr", self.grpc[n], *way, "--log-level", "info",
            "--text-addr", f"{host}:{port}", "--data-dir", self.home / self.name(n), *self.flags]
        if self.namespaces:
            command = self.namespaces.command(n, [*command, "--insecure"])
        environment = dict(os.environ)
        if self.slow_sync:
            self.slow(n, 0)
            environment |= {"LD_PRELOAD": str(self.slow_sync), "SYNC_MS_FILE": str(self.sync_file(n))}
        with open(self.log(n), "a") as log:
            self.running[n] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self.down.discard(n)

    def join(self, name):
        """One more, with an empty directory."""
        self.joiner = name
        self.start(JOINER)

    def sync_file(self, n):
        return self.home / f"{self.name(n)}.sync"

    def slow(self, n, ms):
        """Each of its syncs takes so long from now on."""
        self.sync_file(n).write_text(str(ms))

    def kill(self, *which):
        self.down.update(which)
        for n in which:
            self.running[n].send_signal(signal.SIGKILL)
        for n in which:
            self.running[n].wait()

    def stop(self, n):
        self.running[n].send_signal(signal.SIGSTOP)

    def cut(self, n):
        self.namespaces.cut(n)

    def mute(self, n):
        self.namespaces.drop(n, "OUTPUT", "-o")

    def deafen(self, n):
        self.namespaces.drop(n, "INPUT", "-i")

    def mend(self):
        """Undoes all faults."""
        for n in (*NODES, JOINER):
            if self.namespaces:
                self.namespaces.heal(n)
            if not self.running[n]:
                continue
            if n in self.down:
                self.start(n)
            if self.slow_sync:
                self.slow(n, 0)
            self.running[n].send_signal(signal.SIGCONT)

    def ended(self):
        """Nodes that have ended by themselves."""
        return [n for n in NODES if n not in self.down and self.running[n] and self.running[n].poll() is not None]

    def wait(self, n, until):
        """Waits until a node answers a read."""
        while time.monotonic() < until:
            try:
                with socket.create_connection(self.text[n], 1) as connection:
                    connection.settimeout(2)
                    connection.sendall(b"GET nothing\n")
                    if connection.makefile("rb").readline() == b"NOT_FOUND\n":
                        return True
            except OSError:
                pass
            time.sleep(0.01)
        return False

    def ask(self, *words, timeout_s=10):
        """What a command of Ringfort's prints. None if it fails."""
        command = [self.binary, *words, "--addr", ",".join(self.grpc[n] for n in NODES)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return done.stdout if done.returncode == 0 else None

    def status(self):
        """None if nobody answers."""
        said = self.ask("status", "--json")
        return said and json.loads(said)

    def check(self, until):
        """None once all replicas are equal; else what `ringfort check` last said."""
        while True:
            command = [self.binary, "--addr", ",".join(self.grpc[n] for n in NODES), "check"]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=30)
                said = done.stdout + done.stderr
                if done.returncode == 0:
                    return None
            except subprocess.TimeoutExpired:
                said = "no answer within 30 s"
            if time.monotonic() > until:
                return f"ringfort check: {said.strip()}"
            time.sleep(0.5)

    def close(self):
        for node in self.running:
            if node:
                node.kill()
                node.wait()
        if self.namespaces:
            self.namespaces.close()
