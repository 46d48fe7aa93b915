#!/usr/bin/env python3
"""What a cluster costs that has nothing to do: three nodes with 64, 1,024 and 4,096 shards.

    cargo build --release --workspace && benches/idle.py [--beside OTHER-RINGFORT] [--seconds 15]

For each number of shards and each build, one after the other: the time from the start of three nodes with empty directories until all serve
and every shard has a leader, the same after all were stopped, the processor time that a node takes in a second of rest, and its memory. Each is
the median of the nodes. All of it listens on loopback, in a temporary directory, and ends with the script.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import cluster

SETTLED_S = 5


def measure(binary, shards, seconds):
    with tempfile.TemporaryDirectory() as home:
        home = pathlib.Path(home)

        def start():
            return time.monotonic(), *cluster.start(home, binary, offset=400, flags=lambda number: ["--shards", shards])

        begun, addresses, nodes = start()
        try:
            born_s = cluster.wait_until_ready(addresses, nodes, begun, binary)
            cluster.stop(nodes)
            begun, addresses, nodes = start()
            started_s = cluster.wait_until_ready(addresses, nodes, begun, binary)
            time.sleep(SETTLED_S)
            before = [cluster.processor_ms(node) for node in nodes]
            time.sleep(seconds)
            spent = [(cluster.processor_ms(node) - then) / seconds for node, then in zip(nodes, before)]
            return born_s, started_s, statistics.median(spent), statistics.median(map(cluster.memory_mb, nodes))
        finally:
            cluster.stop(nodes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", metavar="BINARY", type=pathlib.Path)
    parser.add_argument("--seconds", type=int, default=15)
    options = parser.parse_args()
    builds = [("Ringfort", cluster.RINGFORT)] + ([("the other Ringfort", options.beside.resolve())] if options.beside else [])
    print("| shards | build | born in | started in | processor, a node at rest | memory |\n|---|---|---|---|---|---|")
    for shards in (64, 1024, 4096):
        for name, binary in builds:
            born_s, started_s, spent_ms, memory = measure(binary, shards, options.seconds)
            print(f"| {shards} | {name} | {born_s:.1f} s | {started_s:.1f} s | {spent_ms:.1f} ms/s | {memory:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
