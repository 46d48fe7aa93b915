"""Three nodes of Ringfort on loopback, as benches start them, and what the system says of their processes.

The binaries are those of a release build, in $CARGO_TARGET_DIR or `target`. Ports are 25051 and those after it, or begin with
$RINGFORT_BENCH_PORT where something else has them.
"""

import json
import os
import pathlib
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BIN = TARGET / "release"
RINGFORT = BIN / "ringfort"
LOAD = BIN / "ringfort-load"
FIRST_PORT = int(os.environ.get("RINGFORT_BENCH_PORT", 25051))
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
READY_MAX_S = 120
END_MAX_S = 60


def addresses_from(offset, count=3):
    return [f"127.0.0.1:{FIRST_PORT + offset + number}" for number in range(count)]


def start(home, binary=RINGFORT, offset=0, flags=lambda number: ()):
    """Their addresses, with commas between them, and the processes. `flags` are what each has besides."""
    home.mkdir(exist_ok=True)
    addresses = addresses_from(offset)
    nodes = []
    for number, address in enumerate(addresses, 1):
        peers = ",".join(f"node{n}={other}" for n, other in enumerate(addresses, 1) if other != address)
        with open(home / f"node{number}.log", "a") as log:
            nodes.append(subprocess.Popen(
                [binary, "start", "--id", f"node{number}", "--addr", address, "--peers", peers, "--data-dir", home / f"node{number}",
                 *map(str, flags(number))], stdin=subprocess.DEVNULL, stdout=log, stderr=log))
    return ",".join(addresses), nodes


def stop(processes):
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(END_MAX_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def state(addresses, binary=RINGFORT):
    """What `status` says; nothing if nobody answers."""
    asked = subprocess.run([binary, "status", "--json", "--addr", addresses], capture_output=True, text=True)
    return json.loads(asked.stdout) if asked.returncode == 0 else None


def is_ready(addresses, binary=RINGFORT):
    now = state(addresses, binary)
    return now is not None and all(shard["leader"] for shard in now["shards"]) and all(node["state"] == "up" for node in now["nodes"])


def wait_until_ready(addresses, nodes, begun, binary=RINGFORT):
    """How long it took since then until every node is up and every shard led."""
    while not is_ready(addresses, binary):
        for node in nodes:
            if node.poll() is not None:
                log = pathlib.Path(f"{node.args[node.args.index('--data-dir') + 1]}.log").read_text().splitlines()
                raise SystemExit(f"a node ended with {node.returncode}: {log[-1] if log else 'it said nothing'}")
        if time.monotonic() - begun > READY_MAX_S:
            raise SystemExit(f"not ready within {READY_MAX_S} s")
        time.sleep(0.05)
    return time.monotonic() - begun


def last_json(command):
    """Runs it: the object that its last line is."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def bench(addresses, *flags, binary=RINGFORT):
    return last_json([binary, "--addr", addresses, "bench", "--json", *flags])


def processor_ms(process):
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1_000 / TICKS_A_SECOND


def memory_mb(process):
    lines = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
