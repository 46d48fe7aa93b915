#!/usr/bin/env python3
"""Attacks on a node with 512 MB of memory: does it live, and what do others notice?

    cargo build --release --package ringfort-cli && benches/attacks.py [--seconds 6] [--only NAME,…] [--memory-mb 512] [--nice 19]

For each attack (`attacking/kinds.py`) there is a new node on loopback, in a temporary directory, in a cgroup with so much memory (version 2 or 1,
which takes root; without it the node gets RLIMIT_DATA, and that is said: memory that it asks for beyond it is refused). It has rows of 100 B and
of 1 MB. A steady client at 127.0.0.1 (`ringfort bench`, four calls in flight, half puts, half gets, without a session) is measured alone
and then beside the attack, which comes from 127.0.0.2 (guesses of passwords from many addresses).

Attacker, client and node share this machine's processors. The attacker has the lowest priority (nice 19), so that what is seen is what the
attack makes the node do, not what it costs to attack. On two processors that is still harsh. Where others use the machine, the attacker may not get
anywhere at that priority, which is said: --nice gives it another one.

Printed, for each: the client's p50 and p99 alone and beside, in ms, the second p99 by the first (at most 5), the client's errors, the most memory
that the node had, whether it lives, and what the attacker counted. The exit code is 1 if one of them died, or a ratio is above 5.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

from attacking import kinds

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "ringfort"
PORTS = {"grpc": 32101, "text": 32102, "http": 32103}
ADDRESS = f"127.0.0.1:{PORTS['grpc']}"
PATIENCE_S = 30
RATIO_MAX = 5
ROWS, LARGE_ROWS = 20_000, 40


def ringfort(*what, **more):
    return subprocess.run([BINARY, *what], check=True, capture_output=True, **more).stdout


class Cgroup:
    """A limit of memory for one process, in whichever way this machine has it."""

    def __init__(self, memory_mb):
        self.bytes = memory_mb * 1024 * 1024
        self.directory, self.kind = None, "RLIMIT_DATA (no cgroup can be made here)"
        name = f"ringfort-attacks-{os.getpid()}"
        for root, limit, kind in (
            ("/sys/fs/cgroup", "memory.max", "cgroup v2"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "cgroup v1"),
        ):
            directory = pathlib.Path(root, name)
            if not pathlib.Path(root, "cgroup.procs").exists():
                continue
            try:
                directory.mkdir()
                self.directory = directory
                (directory / limit).write_text(str(self.bytes))
                self.kind = kind
                return
            except OSError:
                self.remove()

    def enter(self):
        """In the process that is to be limited, before it is the node."""
        if self.directory:
            (self.directory / "cgroup.procs").write_text(str(os.getpid()))
        else:
            resource.setrlimit(resource.RLIMIT_DATA, (self.bytes, self.bytes))

    def remove(self):
        if self.directory:
            self.directory.rmdir()
            self.directory = None


class Node:
    def __init__(self, home, cgroup, with_tls):
        self.client = ["--addr", ADDRESS]
        flags = ["--addr", ADDRESS, "--data-dir", home / "data", "--slow-request", "off"]
        flags += ["--text-addr", f"127.0.0.1:{PORTS['text']}", "--http", f"127.0.0.1:{PORTS['http']}"]
        if with_tls:
            certs = home / "certs"
            for what in (["init"], ["node", "node1", "--host", "127.0.0.1"], ["client", "steady"]):
                ringfort("certs", *what, "--dir", certs)
            flags += ["--id", "node1", "--tls-ca", certs / "ca.crt", "--tls-cert", certs / "node1.crt", "--tls-key", certs / "node1.key"]
            self.client += ["--ca", certs / "ca.crt", "--cert", certs / "steady.crt", "--key", certs / "steady.key"]
        self.log = home / "log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [BINARY, "start", *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=cgroup.enter)
        until = time.monotonic() + PATIENCE_S
        while not self.answers():
            if time.monotonic() > until or self.process.poll() is not None:
                raise SystemExit(f"no node: {self.log.read_text()}")
            time.sleep(0.1)

    def answers(self):
        return subprocess.run([BINARY, "put", "small", "yes", *self.client], capture_output=True).returncode == 0

    def fill(self):
        rows = "".join(f"row{n:06}\t{'v' * 100}\n" for n in range(ROWS))
        rows += "".join(f"wide{n:03}\t{'w' * 1_000_000}\n" for n in range(LARGE_ROWS)) + f"big\t{'b' * 1_000_000}\n"
        ringfort("import", "-", *self.client, input=rows.encode())
        # The keys that the steady client reads are loaded once.
        self.load(2, [])

    def load(self, seconds, more=("--skip-load",)):
        flags = ["--workload", "mixed", "--transport", "unary", "--in-flight", "4", "--keys", "10000", "--seconds", str(seconds)]
        out = subprocess.run([BINARY, "bench", *flags, *more, "--json", *self.client], capture_output=True, text=True)
        if out.returncode:
            return {"latency_us": {"p50": float("inf"), "p99": float("inf")}, "errors": out.stderr.strip()[-200:], "ops_per_sec": 0}
        return json.loads(out.stdout.splitlines()[-1])

    def most_memory_mb(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) // 1024

    def end(self):
        self.process.kill()
        self.process.wait()


def attack_on(kind, nice, until, tell):
    os.nice(nice)
    try:
        tell.put(dict(kind(PORTS, until)))
    except Exception as error:
        tell.put({f"the attack failed: {error!r}": 1})


def measure(home, cgroup, name, kind, with_tls, asked):
    seconds = asked.seconds
    node = Node(home, cgroup, with_tls)
    try:
        node.fill()
        alone = node.load(seconds)
        fork = multiprocessing.get_context("fork")
        tell = fork.Queue()
        attacker = fork.Process(target=attack_on, args=(kind, asked.nice, time.monotonic() + seconds + 3, tell), daemon=True)
        attacker.start()
        time.sleep(1.5)
        beside = node.load(seconds)
        lives = node.process.poll() is None
        memory = node.most_memory_mb() if lives else 0
        counted = tell.get(timeout=2 * PATIENCE_S)
        attacker.kill()
        attacker.join()
        serves = lives and node.answers()
        log = node.log.read_text()
    finally:
        node.end()
    return report(name, alone, beside, memory, lives, serves, counted, log)


def report(name, alone, beside, memory, lives, serves, counted, log):
    p50, p99 = ([run["latency_us"][at] / 1000 for run in (alone, beside)] for at in ("p50", "p99"))
    ratio = p99[1] / p99[0]
    state = "serves" if serves else "lives, does not serve" if lives else "DEAD"
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(counted.items()) if count) or "it did not get anywhere"
    print(f"{name:32}{p50[0]:7.2f} {p50[1]:7.2f} {p99[0]:8.2f} {p99[1]:8.2f} {ratio:7.2f} x {beside['errors']:>6} {memory:>6} MB  {state:8} {counts}", flush=True)
    if not lives:
        print("    " + "\n    ".join(log.splitlines()[-5:]))
    return serves and ratio <= RATIO_MAX and any(counted.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--memory-mb", type=int, default=512)
    parser.add_argument("--nice", type=int, default=19, help="of the attacker")
    parser.add_argument("--only", type=lambda text: text.split(","), help="attacks whose names have one of these in them")
    asked = parser.parse_args()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    cgroup = Cgroup(asked.memory_mb)
    print(f"{asked.memory_mb} MB for the node: {cgroup.kind}")
    print(f"{'attack':32}{'p50':>7} {'beside':>7} {'p99':>8} {'beside':>8} {'ratio':>9} {'errors':>6} {'memory':>9}  the node, and what the attacker counted")
    is_well = True
    try:
        for name, kind, with_tls in kinds.ALL:
            if asked.only and not any(part in name for part in asked.only):
                continue
            with tempfile.TemporaryDirectory(dir=os.environ.get("RINGFORT_BENCH_DIR")) as home:
                is_well &= measure(pathlib.Path(home), cgroup, name, kind, with_tls, asked)
    finally:
        cgroup.remove()
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
