#!/usr/bin/env python3
"""What guarantees cost: pairs of loads on one Ringfort cluster of three nodes, in turn.

    cargo build --release -p ringfort-cli && benches/costs.py [--rounds 5] [--seconds 4]

In a round the two of a pair run right after each other, in the order A B B A, so that what a load leaves behind (memtables
to flush, sessions, a warm cache) falls on both. The figure is the ratio of the medians. All of it listens on
loopback, in a temporary directory, and ends with the script.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "ringfort"
BASE = 20400
ADDRESSES = [f"127.0.0.1:{BASE + n}" for n in range(3)]

PUT = ["--workload", "put", "--in-flight", "256"]
GET = ["--workload", "get", "--in-flight", "256", "--skip-load"]
PAIRS = [
    ("a write takes effect once", PUT + ["--at-most-once"], PUT),
    ("a put under a condition", PUT, ["--workload", "put-if", "--in-flight", "256", "--skip-load"]),
    ("linearizable reads spread over three replicas", GET, GET + ["--reads-from", "replicas"]),
    ("lease reads", GET, GET + ["--consistency", "lease"]),
    ("stale reads", GET, GET + ["--consistency", "stale"]),
]


def start(home: pathlib.Path):
    started = []
    for n, address in enumerate(ADDRESSES):
        peers = ",".join(other for other in ADDRESSES if other != address)
        flags = ["start", "--addr", address, "--peers", peers, "--replicas", "3", "--data-dir", home / f"node{n + 1}"]
        started.append(subprocess.Popen([BIN, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    return started


def run(arguments, seconds):
    command = [BIN, "--addr", ",".join(ADDRESSES), "bench", "--clients", "6", "--seconds", str(seconds), "--json", *arguments]
    done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    if done["errors"]:
        raise SystemExit(f"{done['errors']} errors")
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ringfort-costs-") as home:
        nodes = start(pathlib.Path(home))
        try:
            time.sleep(3)
            # Loads all keys.
            run(["--workload", "get", "--in-flight", "256"], 1)
            print(f"{'':50} {'A ops/s':>9} {'B ops/s':>9} {'B / A':>7}   p50 A, B (us)")
            for name, a, b in PAIRS:
                told = {"a": [], "b": []}
                for _ in range(options.rounds):
                    for which in "abba":
                        told[which].append(run(a if which == "a" else b, max(1, options.seconds // 2)))
                ops = {which: statistics.median(one["ops_per_sec"] for one in all) for which, all in told.items()}
                p50 = {which: statistics.median(one["latency_us"]["p50"] for one in all) for which, all in told.items()}
                print(f"{name:50} {ops['a']:9.0f} {ops['b']:9.0f} {ops['b'] / ops['a']:7.3f}   {p50['a']:.0f}, {p50['b']:.0f}",
                      flush=True)
        finally:
            for node in nodes:
                node.terminate()
            for node in nodes:
                node.wait()


if __name__ == "__main__":
    main()
