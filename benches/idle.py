#!/usr/bin/env python3
"""What a cluster costs that has nothing to do: three nodes with 64, 1,024 and 4,096 shards.

    cargo build --release --workspace && benches/idle.py [--beside OTHER-RINGFORT] [--seconds 15]

For each number of shards and each build, one after the other: the time from the start of three nodes with empty directories until all serve
and every shard has a leader, the same after all were stopped, the processor time that a node takes in a second of rest, and its memory. Each is
the median of the nodes. All of it listens on loopback, in a temporary directory, and ends with the script.
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
BINARY = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "ringfort"
ADDRESSES = [f"127.0.0.1:{port}" for port in range(25451, 25454)]
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
SETTLED_S = 5
READY_MAX_S = 120


def start(binary, home, shards):
    nodes = []
    for number, address in enumerate(ADDRESSES, 1):
        peers = ",".join(f"node{n}={other}" for n, other in enumerate(ADDRESSES, 1) if other != address)
        with open(home / f"node{number}.log", "w") as log:
            nodes.append(subprocess.Popen(
                [binary, "start", "--id", f"node{number}", "--addr", address, "--peers", peers, "--shards", str(shards),
                 "--data-dir", home / f"node{number}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log))
    return nodes


def is_ready(binary):
    asked = subprocess.run([binary, "status", "--json", "--addr", ",".join(ADDRESSES)], capture_output=True, text=True)
    if asked.returncode:
        return False
    state = json.loads(asked.stdout)
    return all(shard["leader"] for shard in state["shards"]) and all(node["state"] == "up" for node in state["nodes"])


def wait_until_ready(binary, begun):
    while not is_ready(binary):
        if time.monotonic() - begun > READY_MAX_S:
            raise SystemExit("not ready")
        time.sleep(0.05)
    return time.monotonic() - begun


def stop(nodes):
    for node in nodes:
        node.terminate()
    for node in nodes:
        node.wait()


def processor_ms(node):
    fields = pathlib.Path(f"/proc/{node.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1_000 / TICKS_A_SECOND


def memory_mb(node):
    lines = pathlib.Path(f"/proc/{node.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def measure(binary, shards, seconds):
    with tempfile.TemporaryDirectory() as home:
        home = pathlib.Path(home)
        begun = time.monotonic()
        nodes = start(binary, home, shards)
        try:
            born_s = wait_until_ready(binary, begun)
            stop(nodes)
            begun = time.monotonic()
            nodes = start(binary, home, shards)
            started_s = wait_until_ready(binary, begun)
            time.sleep(SETTLED_S)
            before = [processor_ms(node) for node in nodes]
            time.sleep(seconds)
            spent = [(processor_ms(node) - then) / seconds for node, then in zip(nodes, before)]
            return born_s, started_s, statistics.median(spent), statistics.median(map(memory_mb, nodes))
        finally:
            stop(nodes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", metavar="BINARY", type=pathlib.Path)
    parser.add_argument("--seconds", type=int, default=15)
    options = parser.parse_args()
    builds = [("Ringfort", BINARY)] + ([("the other Ringfort", options.beside.resolve())] if options.beside else [])
    print("| shards | build | born in | started in | processor, a node at rest | memory |\n|---|---|---|---|---|---|")
    for shards in (64, 1024, 4096):
        for name, binary in builds:
            born_s, started_s, spent_ms, memory = measure(binary, shards, options.seconds)
            print(f"| {shards} | {name} | {born_s:.1f} s | {started_s:.1f} s | {spent_ms:.1f} ms/s | {memory:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
