#!/usr/bin/env python3
"""What it costs to be watched: three nodes under load, with and without somebody who asks each of them for /metrics every second.

    cargo build --release --workspace && benches/scrape.py [--rounds 5] [--seconds 8] [--per-shard]

Rounds take turns: puts on sessions, 256 in flight, first with or first without a scraper. Printed are the median of the ratios within a round,
and the processor time that a node takes for one scrape, from 500 of them with nobody else about. All of it listens on loopback, in a
temporary directory, and ends with the script.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "ringfort"
ADDRESSES = [f"127.0.0.1:{port}" for port in range(25461, 25464)]
HTTP = [f"127.0.0.1:{port}" for port in range(25471, 25474)]
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
SCRAPES = 500


def start(home, per_shard):
    nodes = []
    for number, address in enumerate(ADDRESSES, 1):
        peers = ",".join(f"node{n}={other}" for n, other in enumerate(ADDRESSES, 1) if other != address)
        with open(home / f"node{number}.log", "w") as log:
            nodes.append(subprocess.Popen(
                [BINARY, "start", "--id", f"node{number}", "--addr", address, "--peers", peers, "--http", HTTP[number - 1],
                 "--data-dir", home / f"node{number}", "--slow-request", "off"] + (["--metrics-per-shard"] if per_shard else []),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log))
    for address in HTTP:
        until = time.monotonic() + 60
        while True:
            try:
                fetch(address, "/readyz?quorum=true")
                break
            except OSError:
                if time.monotonic() > until:
                    raise SystemExit("not ready")
                time.sleep(0.1)
    return nodes


def fetch(address, path):
    request = urllib.request.Request(f"http://{address}{path}", headers={"Accept": "application/openmetrics-text"})
    return urllib.request.urlopen(request, timeout=5).read()


def processor_s(node):
    fields = pathlib.Path(f"/proc/{node.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


class Scraper:
    """Asks each node once a second."""

    def __init__(self):
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()

    def run(self):
        while not self.ends.wait(1):
            for address in HTTP:
                fetch(address, "/metrics")


def puts_a_second(seconds):
    load = subprocess.run(
        [BINARY, "bench", "--in-flight", "256", "--seconds", str(seconds), "--skip-load", "--json", "--addr", ",".join(ADDRESSES)],
        check=True, capture_output=True, text=True)
    return json.loads(load.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--per-shard", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("RINGFORT_BENCH_DIR")) as directory:
        nodes = start(pathlib.Path(directory), asked.per_shard)
        try:
            measure(asked, nodes)
        finally:
            for node in nodes:
                node.terminate()
            for node in nodes:
                node.wait()


def rate(result):
    """The bench's own JSON: the rate of the only operation that there was."""
    return result["ops_per_sec"]


def measure(asked, nodes):
    puts_a_second(3)
    ratios = []
    for number in range(asked.rounds):
        rates = {}
        for is_watched in ([True, False] if number % 2 else [False, True]):
            if is_watched:
                with Scraper():
                    rates[True] = rate(puts_a_second(asked.seconds))
            else:
                rates[False] = rate(puts_a_second(asked.seconds))
        ratios.append(rates[True] / rates[False])
        print(f"round {number + 1}: {rates[False]:,.0f} puts/s alone, {rates[True]:,.0f} watched: {ratios[-1]:.3f} x", flush=True)
    print(f"watched / alone: {statistics.median(ratios):.3f} x (median of {asked.rounds})")
    page = fetch(HTTP[0], "/metrics")
    time.sleep(3)
    begun, before = time.monotonic(), processor_s(nodes[0])
    time.sleep(4)
    idle = (processor_s(nodes[0]) - before) / (time.monotonic() - begun)
    begun, before = time.monotonic(), processor_s(nodes[0])
    for _ in range(SCRAPES):
        fetch(HTTP[0], "/metrics")
    took = time.monotonic() - begun
    each = (processor_s(nodes[0]) - before - idle * took) / SCRAPES
    print(f"a scrape: {each * 1e3:.2f} ms of processor time of the node, {len(page):,} bytes, {page.count(b'{') + 1:,} series about")


if __name__ == "__main__":
    main()
