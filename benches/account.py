#!/usr/bin/env python3
"""Where the time of a put and a get goes: processor time, system calls and context switches an operation. Three nodes on loopback.

    cargo build --release -p ringfort-cli && benches/account.py [--rounds 3] [--seconds 5] [--only "unary put"]

Prints two tables. Processor time is what the system has booked for each thread; of a thread that has ended (log segments are made ahead by
one) only its process knows, in ticks: that is among the rest. User and kernel are told apart by samples, so thousandths of them mean nothing. No
hardware counters are needed.

System calls are counted in runs of their own, since counting slows what is counted, by `perf stat` and the kernel's tracepoints; without
`perf`, or without the right to use it, by `strace -c -f` on one node of three, which slows it so much that it finds more to do in each turn and
has fewer calls: the table says which it was. Each figure is the median of the rounds, for the three nodes together.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
import typing

import cluster

LOADS = {
    "unary put, 64 in flight": ["--workload", "put", "--transport", "unary", "--clients", "6", "--in-flight", "64"],
    "unary get, 64 in flight": ["--workload", "get", "--transport", "unary", "--clients", "6", "--in-flight", "64"],
    "session put, 256 in flight": ["--workload", "put", "--transport", "session", "--clients", "6", "--in-flight", "256"],
    "session get, 256 in flight": ["--workload", "get", "--transport", "session", "--clients", "6", "--in-flight", "256"],
}
KEYS = ["--keys", "100000", "--value-size", "100"]

# What a thread does, by the beginning of its name. The first one of a process has the program's name; the core is a task of it where
# there is one thread for sockets.
GROUPS = [
    ("sockets and core", ("ringfort", "sockets", "core")),
    ("log", ("log",)),
    ("apply", ("apply",)),
    ("flush and merge", ("flush", "merge")),
]
REST = "rest"
# Makes the next segment of the log, now and then, and ends: no part of an operation's way.
LOG_AHEAD = "log-ahead"
# System calls by kind.
CALLS = {
    "send": ("writev", "sendto", "sendmsg"),
    "receive": ("recvfrom", "recvmsg", "readv"),
    "epoll": ("epoll_wait", "epoll_pwait", "epoll_pwait2"),
    # The thread for sockets is woken by one, any other by a futex.
    "eventfd": ("write", "read"),
    "futex": ("futex",),
    "sync": ("fdatasync", "fsync"),
    "file write": ("pwrite64", "pwritev", "pwritev2"),
}
ALL = "all"
PERF_PAUSE_S = 0.5
STRACE_S = 3
REST_S = 4


class Time(typing.NamedTuple):
    """Of processor, in user mode and in the kernel."""

    user: float = 0.0
    kernel: float = 0.0

    def all(self):
        return self.user + self.kernel


class Thread(typing.NamedTuple):
    """What the system has booked for one: nanoseconds, and ticks of what it was found at."""

    group: str
    ns: int
    user: int
    kernel: int
    switches: int


def ticks(stat):
    fields = stat.read_text().rsplit(")", 1)[1].split()
    return int(fields[11]), int(fields[12])


def group_of(name):
    if name == LOG_AHEAD:
        return REST
    return next((group for group, names in GROUPS if name.startswith(names)), REST)


def threads_of(processes):
    """All that there are now."""
    found = {}
    for process in processes:
        for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
            try:
                ns = int((task / "schedstat").read_text().split()[0])
                switches = sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", (task / "status").read_text())))
                found[task.name] = Thread(group_of((task / "comm").read_text().strip()), ns, *ticks(task / "stat"), switches)
            except (FileNotFoundError, ProcessLookupError):
                pass  # It has ended meanwhile.
    return found


class Account:
    """What the system has booked for some processes until now."""

    def __init__(self, processes):
        self.threads = threads_of(processes)
        self.whole_s = sum(sum(ticks(pathlib.Path(f"/proc/{process.pid}/stat"))) for process in processes) / cluster.TICKS_A_SECOND

    def since(self, then):
        """Seconds by group, and switches. Of threads that have ended there is no more than what their processes' ticks have beyond the others'."""
        none = Thread("", 0, 0, 0, 0)
        sums = collections.defaultdict(lambda: [0, 0, 0])
        switches = 0
        for task, now in self.threads.items():
            before = then.threads.get(task, none)
            for place, part in enumerate((now.ns - before.ns, now.user - before.user, now.kernel - before.kernel)):
                sums[now.group][place] += part
            switches += now.switches - before.switches
        groups = collections.defaultdict(Time)
        for group, (ns, user, kernel) in sums.items():
            part = user / (user + kernel) if user + kernel else 1.0
            groups[group] = Time(ns / 1e9 * part, ns / 1e9 * (1 - part))
        ended_s = self.whole_s - then.whole_s - sum(time_of.all() for time_of in groups.values())
        # Ticks are not that exact.
        if ended_s > 0.02 * (self.whole_s - then.whole_s):
            groups[REST] = Time(groups[REST].user + ended_s, groups[REST].kernel)
        return groups, switches


def each(time_of, count):
    """In microseconds for each of so many operations."""
    return Time(time_of.user / count * 1e6, time_of.kernel / count * 1e6)


def load(addresses, flags, seconds):
    """Runs `bench`: its figures, and what it has used."""
    command = [cluster.RINGFORT, "--addr", addresses, "bench", "--json", "--skip-load", "--seconds", str(seconds), *KEYS, *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    told = process.stdout.read()
    process.stdout.close()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"bench ended with {process.returncode}")
    return json.loads(told.splitlines()[-1]), used


def take_time(addresses, nodes, flags, seconds):
    """One round: microseconds an operation by group, those of the client, and switches."""
    before = Account(nodes)
    told, used = load(addresses, flags, seconds)
    groups, switches = Account(nodes).since(before)
    count = told["ops"]
    groups = {group: each(groups[group], count) for group in [name for name, _ in GROUPS] + [REST]}
    client = each(Time(used.ru_utime, used.ru_stime), count)
    return groups, client, switches / count, (used.ru_nvcsw + used.ru_nivcsw) / count, told["ops_per_sec"]


class Perf:
    """Counts in the kernel, without stopping anybody."""

    says = "`perf stat`, three nodes"
    share = 1

    @staticmethod
    def works():
        if not shutil.which("perf"):
            return False
        tried = subprocess.run(["perf", "stat", "-x,", "-e", "syscalls:sys_enter_futex", "true"], capture_output=True)
        return tried.returncode == 0

    def __init__(self, nodes, out):
        self.out = out
        known = [f"syscalls:sys_enter_{call}" for calls in CALLS.values() for call in calls]
        events = ",".join(["raw_syscalls:sys_enter", *known])
        pids = ",".join(str(node.pid) for node in nodes)
        self.process = subprocess.Popen(["perf", "stat", "-x,", "-e", events, "-p", pids, "-o", out], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        time.sleep(PERF_PAUSE_S)

    def end(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        counts = collections.Counter()
        for line in self.out.read_text().splitlines():
            fields = line.split(",")
            if len(fields) > 2 and fields[0].isdigit():
                counts[fields[2].removeprefix("syscalls:sys_enter_").replace("raw_syscalls:sys_enter", ALL)] += int(fields[0])
        return counts


class Strace:
    """Stops a node at every call: for one node of three."""

    says = "`strace` on one node, times three: it is slowed"
    share = 3

    def __init__(self, nodes, out):
        self.out = out
        self.process = subprocess.Popen(["strace", "-c", "-f", "-p", str(nodes[0].pid), "-o", out], stderr=subprocess.DEVNULL)
        time.sleep(PERF_PAUSE_S)

    def end(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        counts = collections.Counter()
        for line in self.out.read_text().splitlines():
            fields = line.split()
            if len(fields) >= 5 and fields[3].isdigit():
                counts[ALL if fields[-1] == "total" else fields[-1]] += int(fields[3])
        return counts


def count_calls(counter, addresses, nodes, flags, seconds, home):
    """System calls an operation, by kind. A load that begins later than the counter is over before it is."""
    counting = counter(nodes, home / "counts")
    told, _ = load(addresses, flags, seconds)
    counts = counting.end()
    share = counter.share / told["ops"]
    figures = {kind: sum(counts[call] for call in calls) * share for kind, calls in CALLS.items()}
    return figures | {ALL: counts[ALL] * share}


def median_time(times):
    return Time(statistics.median(one.user for one in times), statistics.median(one.kernel for one in times))


def split(time_of):
    return f"{time_of.user:.1f} / {time_of.kernel:.1f}"


def row(cells):
    return "| " + " | ".join(cells) + " |"


def heading(cells):
    return row(cells) + "\n" + row(["---"] * len(cells)).replace(" ", "")


def at_rest(nodes):
    """Milliseconds of processor a second."""
    time.sleep(REST_S)
    before = Account(nodes)
    time.sleep(REST_S)
    groups, _ = Account(nodes).since(before)
    return sum(time_of.all() for time_of in groups.values()) * 1_000 / REST_S


def measure(options, addresses, nodes, home):
    rest_ms = at_rest(nodes)
    counter = Perf if Perf.works() else Strace
    counted_s = options.seconds if counter is Perf else min(options.seconds, STRACE_S)
    names = [name for name, _ in GROUPS]
    of_time, of_calls = [], []
    for name, flags in LOADS.items():
        if options.only and options.only not in name:
            continue
        rounds = [take_time(addresses, nodes, flags, options.seconds) for _ in range(options.rounds)]
        groups = {group: median_time([one[0][group] for one in rounds]) for group in names + [REST]}
        client = median_time([one[1] for one in rounds])
        total = statistics.median(sum(time_of.all() for time_of in one[0].values()) + one[1].all() for one in rounds)
        switches, of_client, rate = (statistics.median(one[place] for one in rounds) for place in (2, 3, 4))
        sockets, *others = (groups[group] for group in names)
        of_time.append(row([name, f"{rate:,.0f}/s", f"{total:.1f}", split(sockets), *(split(one) for one in others), f"{groups[REST].all():.1f}",
                            split(client)]))
        counted = [count_calls(counter, addresses, nodes, flags, counted_s, home) for _ in range(options.rounds)]
        calls = [statistics.median(one[kind] for one in counted) for kind in [*CALLS, ALL]]
        of_calls.append(row([name, *(f"{count:.2f}" for count in calls), f"{switches:.2f}", f"{of_client:.2f}"]))
    print(heading(["µs of processor an operation, user / kernel", "rate", "total", *names, REST, "client"]))
    print("\n".join(of_time))
    print(f"\nAt rest the three nodes take {rest_ms:.0f} ms of processor a second, which is among that.\n")
    print(heading([f"system calls an operation ({counter.says})", *CALLS, ALL, "switches between threads, nodes", "client"]))
    print("\n".join(of_calls))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--only", metavar="NAME", help="only loads with this in their name")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ringfort-account-") as home:
        home = pathlib.Path(home)
        begun = time.monotonic()
        addresses, nodes = cluster.start(home, offset=600)
        try:
            cluster.wait_until_ready(addresses, nodes, begun)
            # Loads all keys.
            cluster.bench(addresses, "--workload", "get", "--seconds", 1, *KEYS)
            measure(options, addresses, nodes, home)
        finally:
            cluster.stop(nodes)


if __name__ == "__main__":
    main()
