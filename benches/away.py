#!/usr/bin/env python3
"""A node that was away: back by log, and past the log's budget by snapshots, while clients write.

    cargo build --release -p ringfort-cli && benches/away.py [--keys 1000000] [--snapshot-mb-per-s 64]

Three nodes on loopback, in a temporary directory. Printed: how long until all replicas are equal (`ringfort check`), what
travelled, the latency of writes meanwhile, and the most memory that each node has taken.
"""

import argparse
import datetime
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "ringfort"
BASE = 20500
ADDRESSES = [f"127.0.0.1:{BASE + n}" for n in range(3)]
ALL = ",".join(ADDRESSES)


class Nodes:
    def __init__(self, home, flags):
        self.home, self.flags, self.running = home, flags, [None] * 3

    def start(self, n):
        peers = ",".join(other for other in ADDRESSES if other != ADDRESSES[n])
        flags = ["start", "--addr", ADDRESSES[n], "--peers", peers, "--replicas", "3", "--log-level", "info"]
        log = open(self.home / f"node{n + 1}.log", "a")
        command = [BIN, *flags, *self.flags, "--data-dir", self.home / f"node{n + 1}"]
        self.running[n] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, n):
        self.running[n].send_signal(signal.SIGKILL)
        self.running[n].wait()

    def most_memory_mb(self):
        def of(node):
            status = pathlib.Path(f"/proc/{node.pid}/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) // 1024

        return [of(node) for node in self.running]

    def snapshots(self, n):
        tables = self.home / f"node{n + 1}" / "lane-0" / "shards"
        came = [table for table in tables.iterdir() if "." in table.name]
        return len(came), sum(file.stat().st_size for table in came for file in table.rglob("*") if file.is_file())

    def snapshots_took(self, n):
        """Seconds between the first table that was put in place and the last one."""
        lines = (self.home / f"node{n + 1}.log").read_text().splitlines()
        times = [line.split("Z ")[0] for line in lines if "goes on from a snapshot" in line]
        times = [datetime.datetime.fromisoformat(time) for time in times]
        return (times[-1] - times[0]).total_seconds()


def command(*arguments, seconds=600):
    return subprocess.run([BIN, "--addr", ALL, *arguments], timeout=seconds, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def bench(*arguments):
    return json.loads(command("bench", "--json", *arguments).stdout)


def write(count, keys, size):
    done, rate = 0, 20_000
    while done < count:
        seconds = max(2, (count - done) // rate + 1)
        told = bench("--workload", "put", "--in-flight", "256", "--keys", str(keys), "--value-size", str(size), "--seconds", str(seconds))
        done, rate = done + told["ops"], max(1, int(told["ops_per_sec"]))
    return done


def until_level(nodes, keys):
    """Seconds until all replicas are equal, and what a light load saw meanwhile."""
    began = time.monotonic()
    nodes.start(2)
    load = None
    p99 = []
    while True:
        if load is None:
            arguments = ["bench", "--json", "--workload", "put", "--in-flight", "8", "--keys", str(keys), "--seconds", "1"]
            load = subprocess.Popen([BIN, "--addr", ALL, *arguments], stdout=subprocess.PIPE)
        told, _ = load.communicate()
        p99.append(json.loads(told)["latency_us"]["p99"] / 1000)
        load = None
        if command("--timeout", "2s", "check").returncode == 0:
            return time.monotonic() - began, p99


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--snapshot-mb-per-s", type=int, default=64)
    options = parser.parse_args()
    keys = options.keys
    with tempfile.TemporaryDirectory(prefix="ringfort-away-") as home:
        nodes = Nodes(pathlib.Path(home), ["--snapshot-mb-per-s", str(options.snapshot_mb_per_s)])
        try:
            for n in range(3):
                nodes.start(n)
            time.sleep(3)
            bench("--workload", "get", "--in-flight", "256", "--keys", str(keys), "--seconds", "1")
            calm = bench("--workload", "put", "--in-flight", "8", "--keys", str(keys), "--seconds", "3")["latency_us"]["p99"] / 1000
            print(f"{keys:,} keys; p99 of 8 puts in flight with all there: {calm:.1f} ms", flush=True)

            nodes.kill(2)
            wrote = write(200_000, keys, 100)
            took, p99 = until_level(nodes, keys)
            print(f"most memory a node: {nodes.most_memory_mb()} MB")
            print(f"away for {wrote:,} writes: level {took:.1f} s after its start, {nodes.snapshots(2)[0]} tables by snapshot; "
                  f"p99 meanwhile {max(p99):.1f} ms", flush=True)

            nodes.kill(2)
            wrote = write(700_000, keys, 1000)
            took, p99 = until_level(nodes, keys)
            tables, size = nodes.snapshots(2)
            print(f"away for {wrote:,} writes of 1,000 B: level {took:.1f} s after its start, {tables} tables with {size / 1e6:.0f} MB by "
                  f"snapshot, {size * (tables - 1) / tables / 1e6 / nodes.snapshots_took(2):.0f} MB/s; p99 meanwhile {max(p99):.1f} ms", flush=True)
            print(f"most memory a node: {nodes.most_memory_mb()} MB", flush=True)
        finally:
            for node in nodes.running:
                if node is not None and node.poll() is None:
                    node.terminate()
                    node.wait()


if __name__ == "__main__":
    main()
