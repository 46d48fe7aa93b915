#!/usr/bin/env python3
"""How fast a fourth node gets its share: three nodes with so many rows, then one that joins.

    cargo build --release --workspace && benches/join.py [--rows 5000000] [--shards 64]

Rows have a key of 16 B and a value of 100 B that does not compress. Printed are what `cluster plan` said beforehand, the replicas that moved,
the bytes of their rows, the time from the node's start until no shard is moving, the rate, and the most memory that each node had
meanwhile. At least 50 MB a second is wanted (exit code 1 if it is less). All of it listens on loopback, in a temporary directory,
and ends with the script.
"""

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "ringfort"
FIRST_PORT = 25351
WANTED = 50.0
ROW_BYTES = 116
PATIENCE_S = 600


class Cluster:
    def __init__(self, home, shards):
        self.home, self.shards, self.nodes = home, shards, []

    def address(self, number):
        return f"127.0.0.1:{FIRST_PORT + number}"

    def add(self):
        number = len(self.nodes) + 1
        way = ["--join", self.address(1)] if self.nodes else ["--bootstrap", "--shards", str(self.shards)]
        command = [BINARY, "start", "--id", f"node{number}", "--addr", self.address(number), "--data-dir", self.home / f"node{number}", *way]
        with open(self.home / f"node{number}.log", "w") as log:
            self.nodes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        deadline = time.monotonic() + 30
        while "serves on" not in (self.home / f"node{number}.log").read_text():
            if time.monotonic() > deadline:
                sys.exit((self.home / f"node{number}.log").read_text())
            time.sleep(0.01)

    def ask(self, *arguments, **more):
        command = [BINARY, *arguments, "--addr", self.address(1)]
        return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout

    def status(self):
        return json.loads(self.ask("status", "--json"))

    def wait_until_placed(self):
        deadline = time.monotonic() + PATIENCE_S
        while True:
            state = self.status()
            copies = min(3, len(self.nodes))
            replicas = [shard["replicas"] for shard in state["shards"]]
            there = {replica["node"] for each in replicas for replica in each}
            placed = all(len(each) == copies for each in replicas) and not any(shard["moving"] for shard in state["shards"])
            if placed and len(there) == len(self.nodes):
                return state
            if time.monotonic() > deadline:
                sys.exit(f"not placed within {PATIENCE_S} s")
            time.sleep(0.1)

    def memory_mb(self):
        """The most that each had since the last call."""
        most = []
        for node in self.nodes:
            proc = pathlib.Path(f"/proc/{node.pid}")
            lines = (proc / "status").read_text().splitlines()
            most.append(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024)
            (proc / "clear_refs").write_text("5")
        return most

    def stop(self):
        for node in self.nodes:
            node.terminate()
        for node in self.nodes:
            node.wait()


def rows(count):
    def row(n):
        value = hashlib.blake2b(n.to_bytes(8, "little"), digest_size=50).hexdigest()
        return f"{n * 2654435761 % 2**32:016d}\t{value}\n"

    for first in range(0, count, 10_000):
        yield "".join(map(row, range(first, min(first + 10_000, count)))).encode()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--shards", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        cluster = Cluster(pathlib.Path(home), options.shards)
        try:
            for _ in range(3):
                cluster.add()
            cluster.wait_until_placed()
            begun = time.monotonic()
            load = subprocess.Popen([BINARY, "import", "-", "--addr", cluster.address(1)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            for part in rows(options.rows):
                load.stdin.write(part)
            load.stdin.close()
            if load.wait():
                sys.exit("the import failed")
            print(f"{options.rows} rows imported in {time.monotonic() - begun:.1f} s", flush=True)
            print(cluster.ask("cluster", "plan", "join", "1").strip(), flush=True)
            cluster.memory_mb()
            begun = time.monotonic()
            cluster.add()
            state = cluster.wait_until_placed()
            took_s = time.monotonic() - begun
            new = next(node for node in state["nodes"] if node["name"] == "node4")
            moved = [shard["shard"] for shard in state["shards"] for replica in shard["replicas"] if replica["node"] == new["id"] and shard["shard"]]
            megabytes = options.rows * ROW_BYTES * len(moved) / options.shards / 1e6
            rate = megabytes / took_s
            print(f"{len(moved)} of {3 * options.shards} replicas moved; node4 has {megabytes:.1f} MB after {took_s:.1f} s: {rate:.1f} MB/s")
            print(f"most memory meanwhile, in MB: {', '.join(map(str, cluster.memory_mb()))}")
            checked = cluster.ask("check")
            print(checked.strip().splitlines()[-1])
        finally:
            cluster.stop()
    return 0 if rate >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
