#!/usr/bin/env python3
"""One node with much more data than memory, overwritten again and again: disk use, reads, and a start after a kill.

    cargo build --release -p ringfort-cli && benches/large.py [--keys 1000000] [--value-size 4000] [--gigabytes 20]

Writes under $TMPDIR: about four times the live data (keys × value size). The node has its default memory: 64 MiB of
memtables and 64 MiB of cache.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "ringfort"
ADDRESS = "127.0.0.1:20600"


def start(data):
    node = subprocess.Popen([BIN, "start", "--addr", ADDRESS, "--data-dir", data], stdout=subprocess.PIPE, text=True)
    node.stdout.readline()
    return node


def bench(*arguments):
    # A disk that is busy with compaction may take its time.
    command = [BIN, "--addr", ADDRESS, "--timeout", "60s", "bench", "--json", "--in-flight", "256", *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def disk_bytes(data):
    total = 0
    for file in pathlib.Path(data).rglob("*"):
        try:
            total += file.stat().st_blocks * 512
        except FileNotFoundError:
            pass
    return total


def written_bytes(node):
    facts = pathlib.Path(f"/proc/{node.pid}/io").read_text().split()
    return int(facts[facts.index("write_bytes:") + 1])


class Watch(threading.Thread):
    """The most that a directory takes while this runs."""

    def __init__(self, data):
        super().__init__(daemon=True)
        self.data, self.most, self.over = data, 0, threading.Event()

    def run(self):
        while not self.over.wait(1):
            self.most = max(self.most, disk_bytes(self.data))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--value-size", type=int, default=4000)
    parser.add_argument("--gigabytes", type=float, default=20)
    options = parser.parse_args()
    load = ["--keys", str(options.keys), "--value-size", str(options.value_size)]
    live = options.keys * (options.value_size + 16)
    with tempfile.TemporaryDirectory(prefix="ringfort-large-") as data:
        node = start(data)
        try:
            bench("--workload", "get", "--seconds", "1", *load)
            print(f"{options.keys:,} keys with {options.value_size:,} B each: {live / 1e9:.1f} GB live, "
                  f"{disk_bytes(data) / 1e9:.1f} GB on disk", flush=True)
            watch = Watch(data)
            watch.start()
            rate, written, to_disk = 20_000, 0, written_bytes(node)
            p99s = []
            began = time.monotonic()
            while written < options.gigabytes * 1e9:
                left = (options.gigabytes * 1e9 - written) / options.value_size
                done = bench("--workload", "put", "--seconds", str(max(2, int(left / rate) + 1)), *load)
                rate, written = done["ops_per_sec"], written + done["ops"] * options.value_size
                p99s.append(done["latency_us"]["p99"] / 1000)
            took = time.monotonic() - began
            watch.over.set()
            watch.join()
            time.sleep(20)
            settled = disk_bytes(data)
            print(f"{written / 1e9:.1f} GB of overwrites at {written / took / 1e6:.0f} MB/s, p99 {max(p99s):.0f} ms, "
                  f"{(written_bytes(node) - to_disk) / written:.1f} bytes to disk for each: "
                  f"{watch.most / 1e9:.2f} GB on disk at most, {settled / 1e9:.2f} GB settled, "
                  f"{settled / live:.2f} x the live data", flush=True)
            told = bench("--workload", "get", "--seconds", "15", "--skip-load", *load)
            memory = pathlib.Path(f"/proc/{node.pid}/status").read_text().split("VmHWM:")[1].split()[0]
            print(f"gets, {live / (128 << 20):.0f} x the memory of tables and cache: {told['ops_per_sec']:.0f}/s, "
                  f"p99 {told['latency_us']['p99'] / 1000:.1f} ms, {told['errors']} errors; most memory {int(memory) // 1024} MB", flush=True)
            bench("--workload", "put", "--seconds", "3", *load)
            node.send_signal(signal.SIGKILL)
            node.wait()
            began = time.monotonic()
            node = start(data)
            print(f"killed while it wrote: serves again after {time.monotonic() - began:.2f} s", flush=True)
        finally:
            node.terminate()
            node.wait()


if __name__ == "__main__":
    main()
