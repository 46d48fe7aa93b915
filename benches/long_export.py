#!/usr/bin/env python3
"""A slow export beside full write load: whether it is whole and of one moment, and what it costs in memory and on disk.

    cargo build --release -p ringfort-cli && benches/long_export.py [--gb 0.1] [--mb-per-s 2]

Three nodes. The rows are imported, an export begins, and once its first rows are there (so that each shard's index is settled)
every key is overwritten at random until the export ends. Each line of it is compared with what was imported. Writes under
$TMPDIR: for each node the rows, and what is written while the export runs. RINGFORT names another binary.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = os.environ.get("RINGFORT") or pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "ringfort"
ADDRESSES = [f"127.0.0.1:{port}" for port in (20610, 20611, 20612)]
CHUNK = 64 * 1024


class Node:
    def __init__(self, number, directory):
        self.data = directory / f"d{number}"
        peers = [address for address in ADDRESSES if address != ADDRESSES[number]]
        command = [BIN, "start", "--addr", ADDRESSES[number], "--data-dir", self.data, "--peers", ",".join(peers)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def disk_bytes(self, below=""):
        total = 0
        for file in (self.data / below).rglob("*"):
            try:
                total += file.stat().st_blocks * 512
            except FileNotFoundError:
                pass
        return total

    def memory(self, field):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) * 1024


class Watch(threading.Thread):
    """The most that each node's tables take while this runs."""

    def __init__(self, nodes):
        super().__init__(daemon=True)
        self.nodes, self.most, self.over = nodes, [0] * len(nodes), threading.Event()

    def run(self):
        while not self.over.wait(1):
            self.most = [max(most, node.disk_bytes("lane-0/shards")) for most, node in zip(self.most, self.nodes)]


def client(*arguments):
    return [BIN, "--addr", ",".join(ADDRESSES), "--timeout", "60s", *arguments]


def line(number, size):
    # The keys of `bench`, which overwrites them.
    return f"key-{number:012}\t{f'{number:012} as it was '.ljust(size, '.')}\n".encode()


def load(rows, size):
    run = subprocess.Popen(client("import", "--json", "-"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    with run.stdin as to:
        to.writelines(line(number, size) for number in range(rows))
    if run.wait() != 0:
        raise SystemExit("the rows could not be imported")


class Writers(threading.Thread):
    """Overwrites keys at random, in runs of some seconds, until it is over."""

    def __init__(self, rows, size):
        super().__init__(daemon=True)
        self.command = client("bench", "--json", "--workload", "put", "--skip-load", "--in-flight", "256", "--seconds", "10",
                              "--keys", str(rows), "--value-size", str(size))
        self.ops, self.seconds, self.over = 0, 0.0, threading.Event()

    def run(self):
        while not self.over.is_set():
            began = time.monotonic()
            done = subprocess.run(self.command, stdout=subprocess.PIPE, check=True).stdout
            self.seconds += time.monotonic() - began
            self.ops += json.loads(done)["ops"]


def export(rows, size, bytes_per_s, writers):
    """Reads an export as slowly as this. Gives its exit code and how many lines are as they were imported, in order."""
    # No more is on its way than a pipe holds.
    run = subprocess.Popen(client("export", "--format", "tsv", "-"), stdout=subprocess.PIPE, bufsize=0)
    began, taken, good, rest = time.monotonic(), 0, 0, b""
    while chunk := run.stdout.read(CHUNK):
        if taken == 0:
            writers.start()
        taken += len(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        for text in lines:
            good += text + b"\n" == line(good, size)
        time.sleep(max(0, taken / bytes_per_s - (time.monotonic() - began)))
    return run.wait(), good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=0.1)
    parser.add_argument("--mb-per-s", type=float, default=2)
    parser.add_argument("--value-size", type=int, default=250)
    options = parser.parse_args()
    size = options.value_size
    rows = int(options.gb * 1e9 / (size + 18))
    with tempfile.TemporaryDirectory(prefix="ringfort-long-export-") as directory:
        nodes = [Node(number, pathlib.Path(directory)) for number in range(len(ADDRESSES))]
        try:
            for node in nodes:
                node.process.stdout.readline()
            load(rows, size)
            time.sleep(5)
            before = [node.disk_bytes("lane-0/shards") for node in nodes]
            print(f"{rows:,} rows, {options.gb:g} GB; tables of {max(before) / 1e9:.2f} GB a node", flush=True)
            watch, writers = Watch(nodes), Writers(rows, size)
            watch.start()
            began = time.monotonic()
            code, good = export(rows, size, options.mb_per_s * 1e6, writers)
            took = time.monotonic() - began
            writers.over.set()
            writers.join()
            written = writers.ops * (size + 16)
            whole = "whole, as of one moment" if (code, good) == (0, rows) else "NOT WHOLE"
            print(f"export: exit code {code}, {good:,} of {rows:,} rows as they were imported, in {took:.0f} s: {whole}")
            print(f"meanwhile {writers.ops:,} puts, {writers.ops / max(writers.seconds, 1):,.0f}/s, {written / 1e9:.2f} GB")
            print(f"memory at most {max(node.memory('VmHWM') for node in nodes) / 1e6:.0f} MB a node")
            held = max(watch.most)
            for _ in range(24):
                time.sleep(5)
                after = max(node.disk_bytes("lane-0/shards") for node in nodes)
                if after < 2 * max(before):
                    break
            watch.over.set()
            print(f"tables at most {held / 1e9:.2f} GB a node while it ran, {after / 1e9:.2f} GB afterwards", flush=True)
            if (code, good) != (0, rows):
                raise SystemExit(1)
        finally:
            for node in nodes:
                node.process.terminate()
            for node in nodes:
                node.process.wait()


if __name__ == "__main__":
    main()
