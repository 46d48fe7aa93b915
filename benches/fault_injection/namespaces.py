"""A network namespace for each node and one for the clients, joined by a bridge in a namespace of its own.

A node is cut off by taking its link down, and one way by a rule of its namespace's own. Nothing of the host's network is touched. This
takes root and iproute2, and for one way iptables.
"""

import ctypes
import os
import subprocess

CLONE_NEWNET = 0x40000000


class Namespaces:
    def __init__(self):
        self.hosts = [f"10.77.0.{n}" for n in (1, 2, 3, 4)]
        # `own` is the namespace this process came from.
        self.made, self.cuts, self.dropping, self.own = [], set(), set(), None

    def name(self, name):
        return f"ringfort-doors-{os.getpid()}-{name}"

    def build(self):
        """Makes the namespaces, and enters the clients'."""
        for name in ("hub", "1", "2", "3", "4", "clients"):
            self.made.append(self.name(name))
            ip("netns", "add", self.name(name))
            ip("-n", self.name(name), "link", "set", "lo", "up")
        hub = self.name("hub")
        ip("-n", hub, "link", "add", "hub", "type", "bridge")
        ip("-n", hub, "link", "set", "hub", "up")
        for name, host in [("1", 1), ("2", 2), ("3", 3), ("4", 4), ("clients", 9)]:
            there = self.name(name)
            ip("-n", hub, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", there)
            ip("-n", hub, "link", "set", f"to-{name}", "master", "hub", "up")
            ip("-n", there, "addr", "add", f"10.77.0.{host}/24", "dev", "eth0")
            ip("-n", there, "link", "set", "eth0", "up")
        self.own = os.open("/proc/self/ns/net", os.O_RDONLY)
        clients = os.open(f"/run/netns/{self.name('clients')}", os.O_RDONLY)
        enter(clients)
        os.close(clients)

    def command(self, n, command):
        """The command that runs another one in a node's namespace."""
        return ["ip", "netns", "exec", self.name(str(n + 1)), *command]

    def cut(self, n):
        self.cuts.add(n)
        ip("-n", self.name("hub"), "link", "set", f"to-{n + 1}", "down")

    def drop(self, n, chain, interface):
        """Nothing that a node sends, or is sent, gets through."""
        self.dropping.add(n)
        self.run(n, "iptables", "-A", chain, interface, "eth0", "-j", "DROP")

    def run(self, n, *command):
        subprocess.run(self.command(n, command), check=True, stdin=subprocess.DEVNULL)

    def heal(self, n):
        """Does nothing to a node that is not cut off."""
        if n in self.dropping:
            self.dropping.discard(n)
            self.run(n, "iptables", "-F")
        if n in self.cuts:
            self.cuts.discard(n)
            ip("-n", self.name("hub"), "link", "set", f"to-{n + 1}", "up")

    def close(self):
        if self.own is not None:
            enter(self.own)
            os.close(self.own)
        for name in self.made:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)


def ip(*words):
    subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL)


def enter(namespace):
    """Puts this thread, and what it starts, into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
