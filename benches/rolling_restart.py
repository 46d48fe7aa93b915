#!/usr/bin/env python3
"""Rolling restarts under a client that has nothing but gRPC's own retry policy: Python's grpcio.

    cargo build --release --workspace && benches/rolling_restart.py [--restarts 30] [--binary FILE]

Three nodes on loopback; 64 threads that put and 16 that increment, each call with a deadline of 10 s, over a channel that names all
three nodes, spreads calls over them, and repeats what is UNAVAILABLE. Nodes are asked to stop (SIGTERM) and started again, one after the
other. Printed: what was acknowledged, what failed, and of what failed how much is in doubt. The sums at the end have to be those
acknowledged: an increment that was repeated after it had taken effect would show. Exit code 1 if anything is in doubt, or wrong.
"""

import argparse
import collections
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

from cluster import BIN
from fault_injection.grpc_python import make_stubs, need_grpc

WRITERS, COUNTERS, DEADLINE_S, SERVES_WITHIN_S = 64, 16, 10, 30
POLICY = json.dumps({
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [{"name": [{}], "retryPolicy": {
        "maxAttempts": 5, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"]}}],
})


class Node:
    """One node's process, which can be started again."""

    def __init__(self, binary, home, number, addresses):
        others = ",".join(f"node{n}={other}" for n, other in enumerate(addresses, 1) if n != number)
        self.address, self.log = addresses[number - 1], home / f"node{number}.log"
        self.command = [binary, "start", "--id", f"node{number}", "--addr", self.address, "--peers", others, "--data-dir",
                        home / f"node{number}"]
        self.health = [binary, "health", "--addr", self.address, "--service", "ringfort.v1.KV"]
        self.start()

    def start(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_until_it_serves(self):
        until = time.monotonic() + SERVES_WITHIN_S
        while subprocess.run(self.health, capture_output=True).returncode != 0:
            if time.monotonic() > until:
                raise SystemExit(f"{self.address} does not serve: {self.log.read_text()[-2000:]}")
            time.sleep(0.05)

    def restart(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=30) != 0:
            raise SystemExit(f"{self.address} ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
        self.start()
        self.wait_until_it_serves()


class Load:
    """What clients do, and what they are told."""

    def __init__(self, kv, messages, grpc):
        self.kv, self.messages, self.grpc = kv, messages, grpc
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.acknowledged = 0
        self.added = collections.Counter()
        self.failed, self.doubts = collections.Counter(), []

    def call(self, method, message):
        try:
            method(message, timeout=DEADLINE_S)
            return True
        except self.grpc.RpcError as error:
            outcome = dict(error.trailing_metadata() or ()).get("ringfort-outcome")
            with self.lock:
                self.failed[f"{error.code().name}, {outcome}"] += 1
                if outcome != "rejected":
                    self.doubts.append(f"{error.code().name}: {error.details()}")
            return False

    def put(self, writer):
        number = 0
        while not self.over.is_set():
            put = self.messages.PutRequest(key=f"{writer}-{number}".encode(), value=str(number).encode())
            if self.call(self.kv.Put, put):
                with self.lock:
                    self.acknowledged += 1
            number += 1

    def count(self, key):
        while not self.over.is_set():
            if self.call(self.kv.Increment, self.messages.IncrementRequest(key=key, by=1)):
                with self.lock:
                    self.added[key] += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--restarts", type=int, default=30)
    parser.add_argument("--binary", type=pathlib.Path, default=BIN / "ringfort")
    options = parser.parse_args()
    need_grpc()
    import grpc
    nodes = []
    with tempfile.TemporaryDirectory() as home:
        home = pathlib.Path(home)
        make_stubs(home)
        from ringfort.v1 import kv_pb2, kv_pb2_grpc
        addresses = [f"127.0.0.1:{port}" for port in range(25081, 25084)]
        try:
            for number in (1, 2, 3):
                nodes.append(Node(options.binary, home, number, addresses))
            for node in nodes:
                node.wait_until_it_serves()
            channel = grpc.insecure_channel("ipv4:" + ",".join(addresses), options=[
                ("grpc.default_authority", "ringfort"), ("grpc.enable_retries", 1), ("grpc.service_config", POLICY)])
            kv = kv_pb2_grpc.KVStub(channel)
            load = Load(kv, kv_pb2, grpc)
            counters = [f"counter{number}".encode() for number in range(COUNTERS)]
            threads = [threading.Thread(target=load.put, args=(writer,)) for writer in range(WRITERS)]
            threads += [threading.Thread(target=load.count, args=(key,)) for key in counters]
            for thread in threads:
                thread.start()
            try:
                time.sleep(1)
                for number in range(options.restarts):
                    nodes[number % 3].restart()
            finally:
                load.over.set()
                for thread in threads:
                    thread.join()
            sums = {key: int(kv.Get(kv_pb2.GetRequest(key=key), timeout=DEADLINE_S).value) for key in counters}
        finally:
            for node in nodes:
                node.process.kill()
                node.process.wait()
    wrong = sum(sums[key] != load.added[key] for key in counters)
    print(f"{options.restarts} restarts: {load.acknowledged} puts and {sum(load.added.values())} increments acknowledged, "
          f"{sum(load.failed.values())} failed {dict(load.failed)}, {len(load.doubts)} in doubt, {wrong} sums wrong")
    for doubt in load.doubts[:10]:
        print(f"  in doubt: {doubt}")
    sys.exit(1 if load.doubts or wrong else 0)


if __name__ == "__main__":
    main()
