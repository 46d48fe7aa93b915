"""The processes of a cluster of three nodes: started, killed, asked whether they serve and whether they are equal."""

import signal
import socket
import subprocess
import time

from .namespaces import Namespaces

NODES = range(3)
# How long a node may take until it serves again.
BACK_S = 60.0
# In namespaces the nodes have the same ports; on loopback they count up from these.
GRPC_PORT, TEXT_PORT = 50051, 6666
LOOPBACK_GRPC, LOOPBACK_TEXT = 26151, 26161


class Nodes:
    """Three nodes, each in a network namespace if they are to be cut off, else on loopback."""

    def __init__(self, home, binary, apart, flags=()):
        self.home, self.binary, self.flags = home, binary, flags
        self.running, self.down = [None] * 3, set()
        self.namespaces = Namespaces() if apart else None
        if apart:
            self.grpc = [f"{host}:{GRPC_PORT}" for host in self.namespaces.hosts]
            self.text = [(host, TEXT_PORT) for host in self.namespaces.hosts]
        else:
            self.grpc = [f"127.0.0.1:{LOOPBACK_GRPC + n}" for n in NODES]
            self.text = [("127.0.0.1", LOOPBACK_TEXT + n) for n in NODES]

    def build(self):
        """Makes the network."""
        if self.namespaces:
            self.namespaces.build()

    def start(self, n):
        peers = ",".join(f"node{other + 1}={self.grpc[other]}" for other in NODES if other != n)
        host, port = self.text[n]
        command = [
            self.binary, "start", "--id", f"node{n + 1}", "--addr", self.grpc[n], "--peers", peers, "--log-level",
            "info", "--text-addr", f"{host}:{port}", "--data-dir", self.home / f"node{n + 1}", *self.flags]
        if self.namespaces:
            command = self.namespaces.command(n, [*command, "--insecure"])
        with open(self.home / f"node{n + 1}.log", "a") as log:
            self.running[n] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.down.discard(n)

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

    def mend(self):
        """Undoes all faults."""
        for n in NODES:
            if self.namespaces:
                self.namespaces.heal(n)
            if n in self.down:
                self.start(n)
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

    def check(self, until):
        """None once all replicas are equal; else what `ringfort check` last said."""
        while True:
            command = [self.binary, "--addr", ",".join(self.grpc), "check"]
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
