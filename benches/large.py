#!/usr/bin/env python3
"""One node with much more data than memory, overwritten again and again: disk use, reads, and a start after a kill. What is
read is compared with what was written: a sample by gets, everything by an export at the end.

    cargo build --release -p ringfort-cli && benches/large.py [--keys 1000000] [--value-size 4000] [--gigabytes 20]

Writes under $TMPDIR: about four times the live data (keys × value size). The node has its default memory: 64 MiB of
memtables and 64 MiB of cache.
"""

import argparse
import itertools
import json
import os
import pathlib
import random
import signal
import string
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


class Rows:
    """What each key's value is in each round of writing: for `bench`'s keys, of the size asked for."""

    def __init__(self, keys, size):
        self.keys, self.size = keys, size
        dice = random.Random(7)
        self.noise = "".join(dice.choices(string.ascii_letters, k=2 * size + 997))

    def key(self, number):
        return f"key-{number:012}"

    def value(self, number, turn):
        at = (number * 31 + turn * 7) % (self.size + 997)
        return (self.key(number) + self.noise[at:])[:self.size]

    def lines(self, turn):
        for number in range(self.keys):
            yield f"{self.key(number)}\t{self.value(number, turn)}\n".encode()

    def write(self, turn):
        """An import of all of them that has begun, and the thread that feeds it."""
        command = [BIN, "--addr", ADDRESS, "--timeout", "60s", "import", "--json", "-"]
        run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

        def feed():
            with run.stdin as rows:
                rows.writelines(self.lines(turn))

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        return run, feeder

    def sample(self, turn, count, at_once=100):
        """Gets so many of them, at random."""
        dice = random.Random(8)
        for _ in range(count // at_once):
            numbers = [dice.randrange(self.keys) for _ in range(at_once)]
            told = subprocess.run([BIN, "--addr", ADDRESS, "--timeout", "60s", "get", *map(self.key, numbers)],
                                  check=True, stdout=subprocess.PIPE, text=True).stdout
            for number, line in zip(numbers, told.splitlines(), strict=True):
                if line != f"{self.key(number)}\t{self.value(number, turn)}":
                    raise SystemExit(f"a get of {self.key(number)} has another value than was written")

    def all_are(self, turn):
        command = [BIN, "--addr", ADDRESS, "--timeout", "60s", "export", "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as export:
            for written, read in itertools.zip_longest(self.lines(turn), export.stdout):
                if written != read:
                    raise SystemExit(f"written {written[:40]!r}..., read {read[:40]!r}...")
        if export.returncode != 0:
            raise SystemExit(f"export ended with {export.returncode}")


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
            rows = Rows(options.keys, options.value_size)
            for turn in [1, 2]:
                writing, feeder = rows.write(turn)
                if turn == 2:
                    time.sleep(5)
                    node.send_signal(signal.SIGKILL)
                    node.wait()
                    began = time.monotonic()
                    node = start(data)
                    print(f"killed while it wrote: serves again after {time.monotonic() - began:.2f} s", flush=True)
                feeder.join()
                if writing.wait() != 0 or json.loads(writing.stdout.read())["rows"] != options.keys:
                    raise SystemExit("not all rows were written")
                rows.sample(turn, 20_000)
                print("all keys written once more: 20,000 gets at random have what was written", flush=True)
            rows.all_are(2)
            print(f"all {options.keys:,} rows are as they were written", flush=True)
        finally:
            node.terminate()
            node.wait()


if __name__ == "__main__":
    main()
