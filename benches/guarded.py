#!/usr/bin/env python3
"""What it costs to be guarded: three nodes without TLS, three with it, and three with it and 1,000 users whose rights are judged.

    cargo build --release --workspace && benches/guarded.py [--rounds 5] [--seconds 6] [--users 1000]

All three clusters are there at once; rounds take turns, so that each loads one while the others rest. Printed are the rates of each, and the
medians of the ratios within a round: with TLS to without, with rights to with TLS alone; and the processor time that a node and its client
take together for a full handshake of TLS, both ends with certificates. All of it listens on loopback, in a temporary directory, and ends with the
script.
"""

import argparse
import json
import os
import pathlib
import resource
import socket
import ssl
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "ringfort"
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
LOADS = {
    "session put, 256 in flight": ["--workload", "put", "--transport", "session", "--in-flight", "256"],
    "session get, 256 in flight": ["--workload", "get", "--transport", "session", "--in-flight", "256"],
    "unary put, 64 in flight": ["--workload", "put", "--transport", "unary", "--in-flight", "64", "--clients", "6"],
    "unary get, 64 in flight": ["--workload", "get", "--transport", "unary", "--in-flight", "64", "--clients", "6"],
}
HANDSHAKES = 300
PATIENCE = 60


def ringfort(*what, **more):
    return subprocess.run([BINARY, *what], check=True, capture_output=True, text=True, **more).stdout


class Cluster:
    def __init__(self, home, port, certs=None):
        self.addresses = [f"127.0.0.1:{port + number}" for number in range(3)]
        self.ask = ["--addr", ",".join(self.addresses)]
        if certs:
            self.ask += ["--ca", certs / "ca.crt", "--cert", certs / "load.crt", "--key", certs / "load.key"]
        home.mkdir()
        self.nodes = []
        for number, address in enumerate(self.addresses, 1):
            name = f"node{number}"
            flags = ["--id", name, "--addr", address, "--data-dir", home / name, "--http", "", "--slow-request", "off"]
            flags += ["--peers", ",".join(other for other in self.addresses if other != address)]
            if certs:
                flags += ["--tls-ca", certs / "ca.crt", "--tls-cert", certs / f"{name}.crt", "--tls-key", certs / f"{name}.key"]
            with open(home / f"{name}.log", "w") as log:
                self.nodes.append(subprocess.Popen([BINARY, "start", *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        self.until("put", "ready", "yes")

    def until(self, *what):
        until = time.monotonic() + PATIENCE
        while subprocess.run([BINARY, *what, *self.ask], capture_output=True).returncode:
            if time.monotonic() > until:
                raise SystemExit(f"{' '.join(map(str, what))}: not within {PATIENCE} s")
            time.sleep(0.2)

    def load(self, flags, seconds):
        out = ringfort("bench", *flags, "--seconds", str(seconds), "--skip-load", "--json", *self.ask)
        return json.loads(out.splitlines()[-1])["ops_per_sec"]

    def end(self):
        for node in self.nodes:
            node.terminate()
        for node in self.nodes:
            node.wait()


def processor_s(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def handshake_ms(cluster, certs):
    context = ssl.create_default_context(cafile=certs / "ca.crt")
    context.load_cert_chain(certs / "load.crt", certs / "load.key")
    context.set_alpn_protocols(["h2"])
    host, port = cluster.addresses[0].split(":")

    def own_s():
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime

    before = processor_s(cluster.nodes[0].pid), own_s()
    for _ in range(HANDSHAKES):
        with context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host):
            pass
    after = processor_s(cluster.nodes[0].pid), own_s()
    return tuple((end - begun) / HANDSHAKES * 1e3 for begun, end in zip(before, after))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--users", type=int, default=1000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("RINGFORT_BENCH_DIR")) as directory:
        home = pathlib.Path(directory)
        certs = home / "certs"
        for what in (["init"], *(["node", f"node{n}", "--host", "127.0.0.1"] for n in (1, 2, 3)), ["client", "load"]):
            ringfort("certs", *what, "--dir", certs)
        clusters = {}
        try:
            clusters["plain"] = Cluster(home / "plain", 25501)
            clusters["TLS"] = Cluster(home / "tls", 25511, certs)
            clusters["rights"] = Cluster(home / "rights", 25521, certs)
            give_rights(clusters["rights"], asked.users)
            measure(asked, clusters, certs)
        finally:
            for cluster in clusters.values():
                cluster.end()


def give_rights(cluster, users):
    cluster.until("user", "add", "load", "--no-password")
    for right in (["cluster"], ["admin"]):
        cluster.until("user", "grant", "load", *right)
    for number in range(users - 1):
        ringfort("user", "add", f"user{number}", "--no-password", *cluster.ask)
        ringfort("user", "grant", f"user{number}", "read", f"prefix{number}/", *cluster.ask)
    cluster.until("user", "enforce", "on")


def measure(asked, clusters, certs):
    for cluster in clusters.values():
        ringfort("bench", "--workload", "get", "--seconds", "1", *cluster.ask)
    for name, flags in LOADS.items():
        rounds = []
        for number in range(asked.rounds):
            order = list(clusters.items())
            order = order[number % 3 :] + order[: number % 3]
            rounds.append({which: cluster.load(flags, asked.seconds) for which, cluster in order})
        middle = {which: statistics.median(one[which] for one in rounds) for which in clusters}
        tls = statistics.median(one["TLS"] / one["plain"] for one in rounds)
        rights = statistics.median(one["rights"] / one["TLS"] for one in rounds)
        rates = ", ".join(f"{which} {rate:,.0f}/s" for which, rate in middle.items())
        print(f"{name}: {rates}; TLS / plain {tls:.3f} x, rights of {asked.users} users / TLS {rights:.3f} x", flush=True)
    node, client = handshake_ms(clusters["TLS"], certs)
    print(f"a full handshake: {node:.2f} ms of processor time of the node, {client:.2f} ms of a client in Python")


if __name__ == "__main__":
    main()
