#!/usr/bin/env python3
"""What lists that nobody reads cost others: a node's memory, and the latency of gets beside them.

    cargo build --release --workspace && benches/unread_lists.py [--lists 1000] [--seconds 20]

Three nodes on loopback, in a temporary directory, with 40,000 rows of 1 kB. Gets of one client in turn at all nodes (`ringfort-load
v1`, four connections, four in flight) before, and beside so many unread lists at the first node. Printed: both p99, the most memory that
the first node has taken, and how long after the lists' end it is back within 64 MB of what it took before.
"""

import argparse
import pathlib
import subprocess
import tempfile
import time

import cluster

BACK_MB = 64
BACK_MAX_S = 60


def memory_mb(node, field="VmRSS:"):
    status = pathlib.Path(f"/proc/{node.pid}/status").read_text()
    return int(status.split(field)[1].split()[0]) // 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        addresses, nodes = cluster.start(pathlib.Path(home), offset=20)
        first = addresses.split(",")[0]
        try:
            rows = "".join(f"row{n:06}\t{'v' * 1000}\n" for n in range(40_000))
            importing = [cluster.RINGFORT, "--addr", addresses, "--timeout", "30s", "import", "-"]
            subprocess.run(importing, input=rows.encode(), stdout=subprocess.DEVNULL, check=True)
            gets = [cluster.LOAD, "v1", addresses, "get", 4, 4]
            cluster.last_json([*gets, 3])
            alone, before = cluster.last_json([*gets, 5])["latency_us"], memory_mb(nodes[0])
            unread = subprocess.Popen(
                [str(cluster.LOAD), "unread-lists", first, str(options.lists), str(options.seconds)],
                stdout=subprocess.PIPE, text=True)
            print(unread.stdout.readline().strip(), flush=True)
            beside = cluster.last_json([*gets, options.seconds // 2])["latency_us"]
            unread.wait()
            ended, most = time.monotonic(), memory_mb(nodes[0], "VmHWM:")
            while memory_mb(nodes[0]) > before + BACK_MB and time.monotonic() < ended + BACK_MAX_S:
                time.sleep(0.1)
            took, now = time.monotonic() - ended, memory_mb(nodes[0])
        finally:
            for node in nodes:
                node.kill()
                node.wait()
    print(f"gets: p99 {alone['p99']} us alone, {beside['p99']} us beside the lists: {beside['p99'] / alone['p99']:.2f} x (at most 5)")
    back = f"after {took:.1f} s" if now <= before + BACK_MB else f"not within {BACK_MAX_S} s"
    print(f"memory of the first node: {before} MB before, {most} MB at most, {now} MB now: back {back}")


if __name__ == "__main__":
    main()
