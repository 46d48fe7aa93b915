#!/usr/bin/env python3
"""Load on every front door of three nodes while they are killed, stopped, cut off and all lose power, and a judge.

    cargo build --release -p ringfort-cli && benches/doors.py [--seconds 60] [--faults kill,stop,cut,power]
    benches/doors.py --reshape --seconds 240  # a node joins and is removed while the one that leads everything is out of order
    benches/doors.py --between 1000        # a SIGKILL between a SET and its answer, so many times
    benches/doors.py --check-judge         # the judge itself, against all orders of small histories

Doors: the text port, and the gRPC packages `ringfort.v1` (its counters too), `proto`, `kvstore.v1`, `kv` and `family`,
all at the same time. Each key has one writer, and each of its writes a number of its own; a write that is tried again
is another number. What a door answers says what became of a write: acknowledged, rejected, or unknown; a broken
connection says unknown. Readers ask any node, now and then through another door.

Faults, one after the other, with some seconds between them:

    kill     one node, with SIGKILL; it is started again 2 s later
    stop     one node, with SIGSTOP, for 4 s
    cut      one node's network, to its peers and to clients, for 4 s
    power    all three nodes, with SIGKILL at once (what the system has not synced yet is not lost by this)

With `--reshape` other faults, each during a join of a fourth node and during its removal, on the node that leads all that it has a replica
of (`leader-preference=highest-id`): both have to come to their end within 60 s after the fault.

    stop     SIGSTOP, for 8 s
    mute     what it sends does not arrive, for 8 s
    deaf     what is sent to it does not arrive, for 8 s
    slow     each sync takes 200 ms longer, for 20 s

For `cut`, `mute` and `deaf` each node, and the clients, have a network namespace of their own, which takes root and iproute2 (and
iptables). Nothing of the host's network is touched, and the namespaces are removed at the end. Without such a fault all is on loopback.

The judge: for each key there has to be one order of all its writes and reads in which everything takes effect once,
between its beginning and its end, and every read sees the write before it. A write whose outcome is unknown may take
effect at any time after it began, or not at all; a rejected one never does. For `kv`, whose writes have versions,
nothing may ever go back; nor may the shard's own numbers of its changes, which `ringfort.v1` tells. At the end every
node is asked for every key, through several doors. If something is found, it is told, logs, data and history are kept,
and the exit code is 1.

In the table, `late` are writes of unknown outcome that were seen to take effect after a later one was acknowledged, as
they may. A counter counts increments of `ringfort.v1` that have no place in a session: each takes effect once at most.

`--between`: a SET goes to a node, an increment with it, and the node, or the leader of the key's shard, is killed 0 to
3 ms later if there is no answer yet. Each key has a shard to itself, which counts its changes: so it is seen how often
a write took effect.

grpcio comes from PyPI, into the build directory; RINGFORT_PYTHON names a Python that has it and grpcio-tools already.
"""

import argparse
import asyncio
import collections
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from cluster import BIN
from fault_injection import reshape
from fault_injection.between import Between
from fault_injection.clients import DOORS
from fault_injection.cluster import BACK_S, NODES, Nodes
from fault_injection.faults import FAULTS, Faults
from fault_injection.final_reads import FinalReads
from fault_injection.findings import Findings
from fault_injection.grpc_python import make_stubs, need_grpc
from fault_injection.history import History
from fault_injection.judge import judge_key
from fault_injection.judge.counter import judge_counter
from fault_injection.judge.exhaustive import check_judge
from fault_injection.judge.register import late_writes
from fault_injection.outcome import ACKNOWLEDGED, CALL_S, REJECTED, UNKNOWN
from fault_injection.workload import COUNTERS, Workload

ROOT = pathlib.Path(__file__).resolve().parent.parent
# These need a network that nodes can be cut off from, and what makes it.
APART = {"cut": "ip", "mute": "iptables", "deaf": "iptables"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    doors = [door.name for door in DOORS]
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--faults", type=listed([*FAULTS, *reshape.FAULTS]), help="in this order; empty for none")
    parser.add_argument("--reshape", action="store_true", help="a node joins and leaves meanwhile")
    parser.add_argument("--doors", type=listed(doors), default=doors)
    parser.add_argument("--writers", type=int, default=8, help="keys of each door")
    parser.add_argument("--readers", type=int, default=6, help="of each door")
    parser.add_argument("--rate", type=float, default=15, help="calls a second of each writer and reader")
    parser.add_argument("--between", type=int, default=0, metavar="N", help="SIGKILL between a SET and its answer")
    parser.add_argument("--binary", type=pathlib.Path, default=BIN / "ringfort")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--stale", action="store_true", help="stale reads through ringfort.v1: the judge finds some")
    parser.add_argument("--reasons", action="store_true", help="print why writes were rejected or unknown")
    parser.add_argument("--keep", action="store_true", help="keep logs and data, whatever is found")
    parser.add_argument("--check-judge", action="store_true")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    if options.check_judge:
        return check_judge(rng)
    known = reshape.FAULTS if options.reshape else FAULTS
    options.faults = list(known) if options.faults is None else options.faults
    if strange := set(options.faults) - set(known):
        parser.error(f"{', '.join(sorted(strange))}: here there are {', '.join(known)}")
    apart = not options.between and any(fault in APART for fault in options.faults)
    if apart and (os.geteuid() != 0 or not all(map(shutil.which, APART.values()))):
        without = ",".join(fault for fault in known if fault not in APART)
        parser.error(f"{', '.join(APART)} take root, iproute2 and iptables: leave them out with --faults {without}")
    if not os.access(options.binary, os.X_OK):
        parser.error(f"no {options.binary}: build it first, or give --binary")
    need_grpc()
    # Also where a shell has set the first aside for what runs in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    home = pathlib.Path(tempfile.mkdtemp(prefix="ringfort-doors-"))
    timeout = "10s" if options.between else f"{CALL_S:.0f}s"
    slow_sync = compiled(ROOT / "crates/cli/tests/binary/slow_sync.c", home) if "slow" in options.faults else None
    nodes = Nodes(home, options.binary.resolve(), apart, ["--text-timeout", timeout], slow_sync)
    findings = ["it did not come to its end"]
    try:
        make_stubs(home)
        nodes.build()
        print(f"seed {options.seed}, in {home}", flush=True)
        for n in NODES:
            nodes.start(n)
        if options.between:
            findings = Between(nodes, rng).run(options.between)
        else:
            findings = asyncio.run(run_load(nodes, options, rng))
    except KeyboardInterrupt:
        findings = []
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        nodes.close()
        if not findings and not options.keep:
            shutil.rmtree(home)
        else:
            print(f"logs and data: {home}", flush=True)
    return 1 if findings else 0


async def run_load(nodes, options, rng):
    """Load and faults at the same time, then the last reads, then the judge. Returns the findings."""
    for n in NODES:
        if not await asyncio.to_thread(nodes.wait, n, time.monotonic() + BACK_S):
            raise SystemExit(f"node{n + 1} does not serve")
    history, findings = History(), Findings()
    workload = Workload(nodes, options, rng, history, findings)
    if options.reshape:
        faults = reshape.Reshape(nodes, options.faults, rng, history.timeline, findings)
    else:
        faults = Faults(nodes, options.faults, rng, history.timeline)
    async with asyncio.timeout(options.seconds + 5 * BACK_S):
        begun = time.monotonic()
        until = begun + options.seconds
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch(nodes, findings))
            load = [tasks.create_task(work) for work in workload.work(begun, until)]
            if options.faults:
                load.append(tasks.create_task(faults.run(begun, until)))
            await asyncio.wait(load)
            watching.cancel()
        for figures in workload.figures.values():
            figures.tick()
        await FinalReads(nodes, workload).run()
        await workload.close()
    print_table(workload, judge_all(history, findings), options.reasons)
    if findings.lines or options.keep:
        history.save(nodes.home / "history.jsonl")
    return findings.lines


async def watch(nodes, findings):
    """Waits for a node that ends by itself: none should."""
    while not nodes.ended():
        await asyncio.sleep(0.2)
    n = nodes.ended()[0]
    code = nodes.running[n].returncode
    findings.add(f"node{n + 1} ended by itself, with code {code}: {nodes.home}/node{n + 1}.log")


def judge_all(history, findings):
    """How many findings there are for each line of the table. The first 20 are printed."""
    found = collections.Counter()
    verdicts = [(key, key.door, judge_key(key)) for key in history.keys]
    verdicts += [(counter, COUNTERS, judge_counter(counter)) for counter in history.counters]
    for key, line, wrong in verdicts:
        for finding in wrong:
            found[line] += 1
            if found[line] <= 20:
                findings.add(f"{key.door}, key {key.name}: {finding}")
    return found


def print_table(workload, found, with_reasons):
    print("\ndoor            acknowledged  rejected  unknown  late   reads  longest pause  findings")
    for name, figures in workload.figures.items():
        fates = figures.fates
        late = sum(late_writes(key) for key in workload.history.keys if key.door == name)
        print(
            f"{name:14}{fates[ACKNOWLEDGED]:>14,}{fates[REJECTED]:>10,}{fates[UNKNOWN]:>9,}{late:>6,}"
            f"{figures.reads:>8,}{figures.pause:>13.2f} s{found[name]:>10}")
        if with_reasons:
            for why, times in figures.why.most_common(12):
                print(f"    {times:>6,} {why}")


def compiled(source, home):
    """A library to be loaded first."""
    library = home / f"{source.stem}.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def listed(known):
    def parse(text):
        names = [name for name in text.split(",") if name]
        if strange := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(strange))}: there are {', '.join(known)}")
        return names
    return parse


if __name__ == "__main__":
    sys.exit(main())
