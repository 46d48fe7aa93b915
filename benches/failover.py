#!/usr/bin/env python3
"""How long a shard takes no writes when its leader is killed with SIGKILL. Three nodes on loopback.

    cargo build --release && benches/failover.py [--kills 20]

A key is put again and again through the two other nodes; a pause is the time from the kill of its shard's leader to
the next put that is acknowledged. The killed node is started again, and gets its leaderships back before the next kill.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

from hash_slot import crc16

ROOT = pathlib.Path(__file__).resolve().parent.parent
RINGFORT = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "ringfort"
ADDRESSES = [f"127.0.0.1:{port}" for port in (26051, 26052, 26053)]


def start(home, number):
    address = ADDRESSES[number - 1]
    peers = ",".join(f"node{n}={other}" for n, other in enumerate(ADDRESSES, 1) if other != address)
    with open(home / f"node{number}.log", "a") as log:
        return subprocess.Popen(
            [RINGFORT, "start", "--id", f"node{number}", "--addr", address, "--peers", peers, "--data-dir",
             home / f"node{number}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def leader(shard):
    done = subprocess.run([RINGFORT, "--addr", ",".join(ADDRESSES), "status", "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        return None
    return next((s.get("leader") for s in json.loads(done.stdout)["shards"] if s["shard"] == shard), None)


def put(addresses, key):
    command = [RINGFORT, "--addr", ",".join(addresses), "--timeout", "3s", "put", key, str(time.time())]
    return subprocess.run(command, capture_output=True).returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    kills = parser.parse_args().kills
    key = "probe"
    shard = (crc16(key.encode()) % 16384) * 64 // 16384 + 1
    with tempfile.TemporaryDirectory() as home:
        home = pathlib.Path(home)
        nodes = {number: start(home, number) for number in (1, 2, 3)}
        try:
            while not put(ADDRESSES, key):
                pass
            pauses = []
            for _ in range(kills):
                time.sleep(6)
                number = leader(shard)
                number = number if isinstance(number, int) else int(str(number).removeprefix("node"))
                others = [address for n, address in enumerate(ADDRESSES, 1) if n != number]
                nodes[number].send_signal(signal.SIGKILL)
                killed = time.monotonic()
                nodes[number].wait()
                while not put(others, key):
                    pass
                pauses.append(time.monotonic() - killed)
                print(f"node{number} killed: {pauses[-1]:.3f} s without writes", flush=True)
                nodes[number] = start(home, number)
            pauses.sort()
            p99 = pauses[min(len(pauses) - 1, int(0.99 * len(pauses)))]
            print(f"{kills} kills: median {pauses[len(pauses) // 2]:.3f} s, p99 {p99:.3f} s, longest {pauses[-1]:.3f} s")
        finally:
            for node in nodes.values():
                node.kill()
                node.wait()


if __name__ == "__main__":
    main()
