#!/usr/bin/env python3
"""The speed of each door beside `ringfort.v1`'s unary calls. Three nodes and the load on one machine.

    cargo build --release --workspace && benches/door_speed.py [--rounds 5] [--seconds 4]

The same load for all: 16 B keys out of 100,000, 100 B values, four connections to the three nodes, with 64 calls in flight on
all of them together. On the text port each connection has 16 commands under way. `v1, one at a time` is what a client gets that
waits for each answer, as on the text port without pipelining. `kv-ordered` gives each put a version, which is a condition on
the row; `kv` gives none, as `v1` has none. In a round all are measured one after the other; a ratio is the median over the rounds of a figure divided by the other one in the same round.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import cluster

DOORS = ["v1", "proto", "kvstore", "kv", "kv-ordered", "text"]
ALONE = "v1, one at a time"
# What each is to reach beside which: (door, workload) -> ratio.
FLOORS = {
    ("kvstore", "put", "v1"): 0.9,
    ("kvstore", "get", "v1"): 0.9,
    ("kv", "put", "v1"): 0.9,
    ("kv", "get", "v1"): 0.9,
    ("text", "put", ALONE): 2.0,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        text = cluster.addresses_from(10)
        grpc, nodes = cluster.start(pathlib.Path(home), flags=lambda number: ["--text-addr", text[number - 1]])
        text = ",".join(text)
        try:
            time.sleep(3)
            # Keys to read, with values that every door can show.
            cluster.last_json([cluster.LOAD, "text", text, "put", 4, 512, 10])
            print("| door | figure | beside v1 | beside v1, one at a time | at least |\n|---|---|---|---|---|")
            for workload in ("put", "get"):
                figures = {name: [] for name in [*DOORS, ALONE]}
                for _ in range(options.rounds):
                    for name in figures:
                        door, in_flight = ("v1", 4) if name == ALONE else (name, 64)
                        addresses = text if door == "text" else grpc
                        command = [cluster.LOAD, door, addresses, workload, 4, in_flight, options.seconds]
                        figures[name].append(cluster.last_json(command)["ops_per_sec"])
                for name, own in figures.items():
                    ratios = {
                        other: statistics.median(a / b for a, b in zip(own, figures[other])) for other in ("v1", ALONE)}
                    floors = [f"{FLOORS[key]} × {key[2]}" for key in FLOORS if key[:2] == (name, workload)]
                    print(f"| {name} {workload} | {statistics.median(own):,.0f}/s | {ratios['v1']:.2f} × | "
                          f"{ratios[ALONE]:.2f} × | {''.join(floors)} |", flush=True)
        finally:
            cluster.stop(nodes)


if __name__ == "__main__":
    main()
