#!/usr/bin/env python3
"""The speed of each door beside `ringfort.v1`'s unary calls. Three nodes and the load on one machine.

    cargo build --release --workspace && benches/door_speed.py [--rounds 5] [--seconds 4]

The same load for all: 16 B keys out of 100,000, 100 B values, 64 in flight over four connections to the three nodes. On the
text port each connection has 16 commands under way. In a round all doors are measured one after the other; a ratio is the
median over the rounds of a door's figure divided by that of `ringfort.v1` in the same round.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

from compare import BIN, run, start_ringfort

TEXT = 25061
DOORS = ["v1", "proto", "kvstore", "kv", "text"]
# What each is to reach: (door, workload) -> ratio.
FLOORS = {("kvstore", "put"): 0.9, ("kvstore", "get"): 0.9, ("kv", "put"): 0.9, ("kv", "get"): 0.9, ("text", "put"): 2.0}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        grpc, nodes = start_ringfort(
            pathlib.Path(home), first=25051, flags=lambda number: ["--text-addr", f"127.0.0.1:{TEXT + number}"])
        text = ",".join(f"127.0.0.1:{TEXT + number}" for number in (1, 2, 3))
        try:
            time.sleep(3)
            run([BIN / "ringfort", "--addr", grpc, "bench", "--workload", "get", "--keys", 100_000, "--seconds", 1, "--json"])
            print("| 64 in flight | figure | beside ringfort.v1 | at least |\n|---|---|---|---|")
            for workload in ("put", "get"):
                figures = {door: [] for door in DOORS}
                for _ in range(options.rounds):
                    for door in DOORS:
                        addresses = text if door == "text" else grpc
                        command = [BIN / "ringfort-load", door, addresses, workload, 4, 64, options.seconds]
                        figures[door].append(run(command)["ops_per_sec"])
                for door in DOORS:
                    ratio = statistics.median(a / b for a, b in zip(figures[door], figures["v1"]))
                    floor = FLOORS.get((door, workload))
                    print(f"| {door} {workload} | {statistics.median(figures[door]):,.0f}/s | {ratio:.2f} × | "
                          f"{f'{floor} ×' if floor else ''} |", flush=True)
        finally:
            for process in nodes:
                process.terminate()
            for process in nodes:
                process.wait()


if __name__ == "__main__":
    main()
