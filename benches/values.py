#!/usr/bin/env python3
"""Larger values: bytes a second that three nodes take, each on its disk, beside what the disk takes.

    cargo build --release -p ringfort-cli && benches/values.py [--rounds 3] [--seconds 8] [--sizes 4096,65536]

The three disks are one here, so what it takes is divided by three: it is measured by `fio` (Debian's), which writes one file from its beginning
on, a MiB at a time, each synced before the next. In a round that and the puts follow each other. A node writes what it is given to its log, synced, and later
to a table. Everything lies in a temporary directory ($TMPDIR), and ends with the script.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import cluster
import debian

KEY_BYTES = 16
# All rows together.
LIVE_BYTES = 256 << 20
BLOCK = "1m"
GOAL = 0.6


def disk_rate(home, seconds):
    """Bytes a second, in one stream."""
    command = ["fio", "--name=synced", f"--directory={home}", "--rw=write", f"--bs={BLOCK}", "--size=1g", "--fdatasync=1", "--ioengine=psync",
               "--time_based", f"--runtime={seconds}", "--output-format=json"]
    done = subprocess.run(command, env=debian.environment("fio", "fio"), check=True, capture_output=True, text=True)
    # Before the object there may be notes.
    told = json.loads(done.stdout[done.stdout.index("{"):])
    return told["jobs"][0]["write"]["bw_bytes"]


def put_rate(addresses, size, seconds):
    keys = ["--keys", LIVE_BYTES // size, "--value-size", size]
    told = cluster.bench(addresses, "--workload", "put", "--clients", 6, "--in-flight", 256, "--seconds", seconds, *keys)
    if told["errors"]:
        raise SystemExit(f"{told['errors']} errors")
    return told["ops_per_sec"] * (size + KEY_BYTES)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--sizes", default="4096,65536")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ringfort-values-") as home:
        home = pathlib.Path(home)
        begun = time.monotonic()
        addresses, nodes = cluster.start(home / "nodes", offset=800)
        try:
            cluster.wait_until_ready(addresses, nodes, begun)
            print("| values of | into each of three disks | the disk, divided by three | ratio | goal |\n|---|---|---|---|---|")
            for size in map(int, options.sizes.split(",")):
                # What a load begins with, other than what it comes to.
                put_rate(addresses, size, 2)
                rounds = [(put_rate(addresses, size, options.seconds), disk_rate(home, options.seconds) / 3) for _ in range(options.rounds)]
                ratio = statistics.median(puts / disk for puts, disk in rounds)
                puts, disk = (statistics.median(one[place] for one in rounds) / 1e6 for place in (0, 1))
                print(f"| {size:,} B | {puts:,.0f} MB/s | {disk:,.0f} MB/s | {ratio:.2f} × | ≥ {GOAL} × |", flush=True)
        finally:
            cluster.stop(nodes)


if __name__ == "__main__":
    main()
