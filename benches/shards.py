#!/usr/bin/env python3
"""What shards cost: three nodes with 64, 1,024 and 4,096 of them, under one load and at rest.

    cargo build --release -p ringfort-cli && benches/shards.py [--rounds 3] [--seconds 4] [--shards 64,1024,4096]

In a round each of the clusters runs by itself, one after the other: it starts (in the first round with empty directories, later with what it had
when it was stopped) and is ready once every node is up and every shard led; then puts and gets over sessions, 256 in flight; then a while at
rest. Figures are the medians of the rounds, and ratios those of the ratios within a round, to the first number of shards. All of it listens on
loopback, in a temporary directory, and ends with the script.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import cluster

KEYS = ["--keys", 100_000, "--value-size", 100, "--clients", 6, "--in-flight", 256, "--transport", "session"]
SETTLED_S = 5


class Round:
    """What was measured of one cluster in one round."""

    def __init__(self, home, shards, is_first, options):
        begun = time.monotonic()
        addresses, nodes = cluster.start(home, offset=700, flags=lambda number: ["--shards", shards])
        try:
            self.ready_s = cluster.wait_until_ready(addresses, nodes, begun)
            if is_first:
                # Loads all keys.
                cluster.bench(addresses, "--workload", "get", "--seconds", 1, *KEYS)
            self.put, self.get = (
                cluster.bench(addresses, "--workload", workload, "--skip-load", "--seconds", options.seconds, *KEYS)["ops_per_sec"]
                for workload in ("put", "get")
            )
            time.sleep(SETTLED_S)
            before = [cluster.processor_ms(node) for node in nodes]
            time.sleep(options.rest)
            spent = [(cluster.processor_ms(node) - then) / options.rest / 10 for node, then in zip(nodes, before)]
            self.rest_percent = statistics.median(spent)
            self.memory_mb = statistics.median(map(cluster.memory_mb, nodes))
        finally:
            cluster.stop(nodes)


def print_row(shards, first, rounds):
    def middle(of):
        return statistics.median(map(of, rounds))

    def ratio(of):
        return statistics.median(of(one) / of(other) for one, other in zip(rounds, first))

    later = [one.ready_s for one in rounds[1:]]
    again = f"{statistics.median(later):.1f} s" if later else "–"
    print(f"| {shards:,} | {middle(lambda one: one.put):,.0f}/s | {ratio(lambda one: one.put):.2f} × | {middle(lambda one: one.get):,.0f}/s "
          f"| {ratio(lambda one: one.get):.2f} × | {middle(lambda one: one.rest_percent):.1f} % | {rounds[0].ready_s:.1f} s | {again} "
          f"| {middle(lambda one: one.memory_mb):.0f} MB |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rest", type=int, default=10, metavar="SECONDS")
    parser.add_argument("--shards", default="64,1024,4096")
    options = parser.parse_args()
    numbers = [int(number) for number in options.shards.split(",")]
    with tempfile.TemporaryDirectory(prefix="ringfort-shards-") as home:
        home = pathlib.Path(home)
        rounds = {number: [] for number in numbers}
        for turn in range(options.rounds):
            # Who comes first finds a machine at rest: in turn.
            for number in numbers[turn % len(numbers):] + numbers[:turn % len(numbers)]:
                rounds[number].append(Round(home / f"of-{number}", number, turn == 0, options))
        print("| shards | session put | to the first | session get | to the first | a node at rest, of a core | born in | started again in "
              "| memory |\n|---|---|---|---|---|---|---|---|---|")
        for number in numbers:
            print_row(number, rounds[numbers[0]], rounds[number])
        print(f"| goal | | ≥ 0.8 × | | ≥ 0.8 × | ≤ 2 % | ≤ 2 s | ≤ 2 s | |")


if __name__ == "__main__":
    main()
