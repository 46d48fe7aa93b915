#!/usr/bin/env python3
"""Load on every front door of three nodes while they are killed, stopped, cut off and all lose power, and a judge.

    cargo build --release -p ringfort-cli && benches/doors.py [--seconds 60] [--faults kill,stop,cut,power]
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

For `cut` each node, and the clients, have a network namespace of their own, which takes root and iproute2. Nothing of
the host's network is touched, and the namespaces are removed at the end. Without `cut` all is on loopback.

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
import bisect
import collections
import ctypes
import dataclasses
import itertools
import json
import math
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from hash_slot import crc16

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
NODES = range(3)
FAULTS = {"kill": 2.0, "stop": 4.0, "cut": 4.0, "power": 0.5}
HEALED_S = 3.0
# How long a call may take.
CALL_S = 3.0
# How long a node may take until it serves again.
BACK_S = 60.0
GRPC_PORT, TEXT_PORT = 50051, 6666
LOOPBACK_GRPC, LOOPBACK_TEXT = 26151, 26161
NEVER = math.inf
ACKNOWLEDGED, REJECTED, UNKNOWN = "acknowledged", "rejected", "unknown"


# --- the judge


@dataclasses.dataclass(slots=True)
class Op:
    """A write or a read. `number` is the write's, or that of the write which was read; 0: the key was never there;
    None: it is not there, and that may come from several deletes."""

    what: str
    number: int | None
    begin: float
    end: float = NEVER
    fate: str = UNKNOWN
    door: str = ""
    node: int = 0

    def told(self):
        end = "never answered" if self.end == NEVER else f"{self.end:.4f}"
        fate = "" if self.what == "read" else f", {self.fate}"
        return f"{self.what} {self.number} through {self.door}, node{self.node + 1}, {self.begin:.4f} to {end}{fate}"


class Key:
    """One key, and all that happened to it."""

    def __init__(self, name, door, is_versioned=False):
        self.name, self.door, self.is_versioned = name, door, is_versioned
        self.writes, self.reads, self.findings = {}, [], []
        self.revisions = {}
        self.next = 1
        self.may_delete = True

    def begin(self, what, node):
        number, self.next = self.next, self.next + 1
        write = Op(what, number, time.monotonic(), door=self.door, node=node)
        self.writes[number] = write
        return write

    def value(self, number):
        """What a write puts there. No two are equal, of one key or of two."""
        size = 2000 if number % 50 == 0 else number * 7 % 200
        return f"{number} {self.name} {'x' * size}."

    def read(self, text, begin, node, door, revision=None):
        """Takes down what a read has told; what can be judged at once is."""
        read = Op("read", None, begin, time.monotonic(), door=door, node=node)
        if text is not None:
            word = text.split(" ", 1)[0]
            read.number = int(word) if word.isdecimal() else -1
            write = self.writes.get(read.number)
            if write is None or text != self.value(read.number):
                self.findings.append(f"nobody wrote what was read, {text[:80]!r}: {read.told()}")
                return
            self.took_effect(write, revision)
        self.reads.append(read)

    def took_effect(self, write, revision):
        """A write has one revision of its shard, if it was done once."""
        if revision is None or self.revisions.setdefault(write.number, revision) == revision:
            return
        self.findings.append(
            f"a write took effect twice, at revisions {self.revisions[write.number]} and {revision} of its shard: "
            f"{write.told()}")

    def judge(self):
        """What is wrong, a line each."""
        findings = list(self.findings)
        for read in self.reads:
            write = self.writes.get(read.number)
            if write is None:
                continue
            if write.fate == REJECTED:
                findings.append(f"a rejected write was read: {write.told()}; {read.told()}")
            if write.what == "old":
                findings.append(f"a write of an older version was read: {write.told()}; {read.told()}")
            if read.end < write.begin:
                findings.append(f"it was read before it was written: {write.told()}; {read.told()}")
        if not findings:
            findings = self.judge_versions() if self.is_versioned else self.judge_order() + self.judge_revisions()
        return findings

    def judge_revisions(self):
        """Where it is known how the shard has numbered its changes, nobody may see an older one than was seen before.
        So a write that came late, which is allowed, is told from a read of something old, which is not."""
        findings, ends, highest = [], [-NEVER], [(-1, None)]
        done = [write for write in self.writes.values() if write.fate == ACKNOWLEDGED]
        for op in sorted([*done, *self.reads], key=lambda op: op.end):
            revision = self.revisions.get(op.number)
            if revision is None:
                continue
            floor, before = highest[bisect.bisect_left(ends, op.begin) - 1]
            if revision < floor:
                findings.append(
                    f"it went back: {before.told()}, revision {floor} of the shard; then {op.told()}, revision "
                    f"{revision}")
            ends.append(op.end)
            highest.append(max(highest[-1], (revision, op), key=lambda pair: pair[0]))
        return findings

    def valid_writes(self):
        return [write for write in self.writes.values() if write.fate != REJECTED and write.what != "old"]

    def judge_versions(self):
        """Whoever reads sees at least the highest version that was acknowledged, or read, before."""
        writes = self.valid_writes()
        deletes = sorted((write.number, write.begin) for write in writes if write.what == "delete")
        done = [write for write in writes if write.fate == ACKNOWLEDGED]
        findings, ends, highest = [], [-NEVER], [Op("nothing", 0, -NEVER, -NEVER)]
        for op in sorted([*done, *self.reads], key=lambda op: op.end):
            number = op.number
            if op.what == "read":
                floor = highest[bisect.bisect_left(ends, op.begin) - 1]
                if number is None:
                    begun = (number for number, begin in deletes if number >= floor.number and begin < op.end)
                    number = 0 if floor.number == 0 else next(begun, None)
                if number is None or number < floor.number:
                    findings.append(f"it went back: {floor.told()}; then {op.told()}")
                    continue
            ends.append(op.end)
            highest.append(max(highest[-1], dataclasses.replace(op, number=number), key=lambda op: op.number))
        return findings

    def attribute(self, writes):
        """Says of each read that found nothing which delete it saw, where only one can be meant. Those where several
        can are left out: fewer reads never make a history worse."""
        findings, reads = [], []
        done = sorted((write for write in writes if write.fate == ACKNOWLEDGED), key=lambda write: write.end)
        ends = [write.end for write in done]
        latest = list(itertools.accumulate((write.begin for write in done), max))
        nothing = Op("nothing", 0, -NEVER, -NEVER, ACKNOWLEDGED)
        deletes = [nothing, *(write for write in writes if write.what == "delete")]
        for read in self.reads:
            if read.number is not None:
                reads.append(read)
                continue
            before = bisect.bisect_left(ends, read.begin)
            begun = latest[before - 1] if before else -NEVER
            meant = [delete for delete in deletes if delete.begin < read.end and delete.end >= begun]
            if not meant:
                findings.append(f"it is gone, and nobody deleted it: {done[before - 1].told()}; then {read.told()}")
            elif len(meant) == 1:
                reads.append(dataclasses.replace(read, number=meant[0].number))
        return findings, [nothing, *writes], reads

    def judge_order(self):
        """Gibbons and Korach, Testing Shared Memories (1997), for a register whose writes all have values of their own.
        The time of a write and its reads is from the first end of any of them to the last beginning. If that goes
        forward, the value was there all that time: no two such times may overlap, and no other value may have come and
        gone within one."""
        findings, writes, reads = self.attribute(self.valid_writes())
        ops = {write.number: [write] for write in writes}
        for read in reads:
            ops[read.number].append(read)
        forward, others = [], []
        for group in ops.values():
            ended, begun = min(group, key=lambda op: op.end), max(group, key=lambda op: op.begin)
            if ended.end < begun.begin:
                forward.append((ended.end, begun.begin, ended, begun))
            elif ended.end != NEVER:
                others.append((begun.begin, ended.end, ended))
        forward.sort(key=lambda zone: zone[:2])
        for (_, end, first, last), (start, _, other, again) in itertools.pairwise(forward):
            if start < end:
                findings.append(
                    f"two values at one time: {first.told()}; and then again {last.told()}; between them "
                    f"{other.told()}, and later {again.told()}")
        starts = [zone[0] for zone in forward]
        for start, end, op in others:
            at = bisect.bisect_left(starts, start) - 1
            if at >= 0 and end < forward[at][1]:
                _, _, first, last = forward[at]
                findings.append(f"{op.told()}; but {first.told()} was before it, and {last.told()} after it")
        return findings

    def late(self):
        """Writes of unknown outcome that took effect after a later one was acknowledged. They may."""
        done = sorted((write.end, write.number) for write in self.valid_writes() if write.fate == ACKNOWLEDGED)
        ends, highest = [end for end, _ in done], list(itertools.accumulate((number for _, number in done), max))
        late = set()
        for read in self.reads:
            before = bisect.bisect_left(ends, read.begin)
            if read.number and before and highest[before - 1] > read.number:
                late.add(read.number)
        return len(late)


class Counter:
    """A number that several clients add one to."""

    def __init__(self, name, door):
        self.name, self.door = name, door
        self.adds, self.reads = [], []

    def judge(self):
        findings = []
        done = sorted((add for add in self.adds if add.fate == ACKNOWLEDGED), key=lambda add: add.end)
        ends = [add.end for add in done]
        begun = sorted(add.begin for add in self.adds if add.fate != REJECTED)
        if len({add.number for add in done}) != len(done):
            twice = [total for total, times in collections.Counter(add.number for add in done).items() if times > 1]
            findings.append(f"several additions of 1 came to the same sum: {twice[:10]}")
        seen, highest = [-NEVER], [Op("nothing", 0, -NEVER)]
        for op in sorted([*done, *self.reads], key=lambda op: op.end):
            floor = highest[bisect.bisect_left(seen, op.begin) - 1]
            before, at_most = bisect.bisect_left(ends, op.begin), bisect.bisect_left(begun, op.end)
            own = int(op.what != "read")
            if op.number < floor.number + own:
                findings.append(f"it went back: {floor.told()}; then {op.told()}")
            if not before + own <= op.number <= at_most:
                findings.append(
                    f"{before} acknowledged before it, {at_most} begun in time and not rejected: {op.told()}")
            seen.append(op.end)
            highest.append(max(highest[-1], op, key=lambda op: op.number))
        return findings

    def late(self):
        return 0


# --- the nodes


class Nodes:
    """Three nodes, each in a network namespace if they are to be cut off, else on loopback."""

    def __init__(self, home, binary, apart, flags=()):
        self.home, self.binary, self.apart, self.flags = home, binary, apart, flags
        self.running, self.down, self.cuts = [None] * 3, set(), set()
        self.namespaces, self.own = [], None
        if apart:
            self.hosts = [f"10.77.0.{n + 1}" for n in NODES]
            self.grpc = [f"{host}:{GRPC_PORT}" for host in self.hosts]
            self.text = [(host, TEXT_PORT) for host in self.hosts]
        else:
            self.grpc = [f"127.0.0.1:{LOOPBACK_GRPC + n}" for n in NODES]
            self.text = [("127.0.0.1", LOOPBACK_TEXT + n) for n in NODES]

    def namespace(self, name):
        return f"ringfort-doors-{os.getpid()}-{name}"

    def build(self):
        """Makes the namespaces, and goes into the clients'. A bridge in a namespace of its own joins them."""
        if not self.apart:
            return
        for name in ("hub", "1", "2", "3", "clients"):
            self.namespaces.append(self.namespace(name))
            ip("netns", "add", self.namespace(name))
            ip("-n", self.namespace(name), "link", "set", "lo", "up")
        hub = self.namespace("hub")
        ip("-n", hub, "link", "add", "hub", "type", "bridge")
        ip("-n", hub, "link", "set", "hub", "up")
        for name, host in [("1", 1), ("2", 2), ("3", 3), ("clients", 9)]:
            there = self.namespace(name)
            ip("-n", hub, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", there)
            ip("-n", hub, "link", "set", f"to-{name}", "master", "hub", "up")
            ip("-n", there, "addr", "add", f"10.77.0.{host}/24", "dev", "eth0")
            ip("-n", there, "link", "set", "eth0", "up")
        self.own = os.open("/proc/self/ns/net", os.O_RDONLY)
        clients = os.open(f"/run/netns/{self.namespace('clients')}", os.O_RDONLY)
        enter(clients)
        os.close(clients)

    def start(self, n):
        peers = ",".join(f"node{other + 1}={self.grpc[other]}" for other in NODES if other != n)
        host, port = self.text[n]
        command = [
            self.binary, "start", "--id", f"node{n + 1}", "--addr", self.grpc[n], "--peers", peers, "--log-level",
            "info", "--text-addr", f"{host}:{port}", "--data-dir", self.home / f"node{n + 1}", *self.flags]
        if self.apart:
            command = ["ip", "netns", "exec", self.namespace(str(n + 1)), *command, "--insecure"]
        with open(self.home / f"node{n + 1}.log", "a") as log:
            self.running[n] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.down.discard(n)

    def kill(self, *which):
        self.down.update(which)
        for n in which:
            self.running[n].send_signal(signal.SIGKILL)
        for n in which:
            self.running[n].wait()

    def cut(self, n):
        self.cuts.add(n)
        ip("-n", self.namespace("hub"), "link", "set", f"to-{n + 1}", "down")

    def heal(self, n):
        self.cuts.discard(n)
        ip("-n", self.namespace("hub"), "link", "set", f"to-{n + 1}", "up")

    def mend(self):
        """Undoes all faults."""
        for n in NODES:
            if n in self.cuts:
                self.heal(n)
            if n in self.down:
                self.start(n)
            self.running[n].send_signal(signal.SIGCONT)

    def ended(self):
        """Nodes that have ended by themselves."""
        return [n for n in NODES if n not in self.down and self.running[n] and self.running[n].poll() is not None]

    def wait(self, n, until):
        """Waits until a node answers a read."""
        while time.monotonic() < until:
            try:
                with socket.create_connection(self.text[n], 1) as connection:
                    connection.settimeout(2)
                    connection.sendall(b"GET nothing\n")
                    if connection.makefile("rb").readline() == b"NOT_FOUND\n":
                        return True
            except OSError:
                pass
            time.sleep(0.01)
        return False

    def check(self, until):
        """Whether all replicas are equal; else what was said."""
        while True:
            command = [self.binary, "--addr", ",".join(self.grpc), "check"]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=30)
                said = done.stdout + done.stderr
                if done.returncode == 0:
                    return None
            except subprocess.TimeoutExpired:
                said = "no answer within 30 s"
            if time.monotonic() > until:
                return f"ringfort check: {said.strip()}"
            time.sleep(0.5)

    def close(self):
        for node in self.running:
            if node:
                node.kill()
                node.wait()
        if self.own is not None:
            enter(self.own)
            os.close(self.own)
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)


def ip(*words):
    subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL)


def enter(namespace):
    """Puts this thread, and what it starts, into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")


# --- the doors


class Failed(Exception):
    """A call that failed, and what became of it."""

    def __init__(self, fate, why):
        super().__init__(why)
        self.fate, self.why = fate, why


class Odd(Exception):
    """An answer that no door should give."""


class Text:
    """The text port. Each task has a connection of its own to each node."""

    name, deletes = "text", True

    def __init__(self, nodes):
        self.addresses = nodes.text

    def line(self):
        return TextLine(self.addresses)

    def close(self):
        pass


class TextLine:
    def __init__(self, addresses):
        self.addresses, self.open = addresses, {}

    async def is_ready(self, node):
        if node in self.open:
            return True
        try:
            self.open[node] = await asyncio.wait_for(asyncio.open_connection(*self.addresses[node], limit=1 << 20), 0.5)
            return True
        except (OSError, TimeoutError):
            return False

    async def ask(self, node, *lines):
        """An answer for each line, or None if it did not come. Then the connection is given up."""
        answers = []
        try:
            reader, writer = self.open[node]
            writer.write("".join(f"{line}\n" for line in lines).encode())
            async with asyncio.timeout(CALL_S + 1):
                await writer.drain()
                while len(answers) < len(lines):
                    answer = await reader.readuntil(b"\n")
                    answers.append(answer[:-1].decode())
        except (OSError, EOFError, TimeoutError):
            _, writer = self.open.pop(node)
            writer.transport.abort()
        return answers + [None] * (len(lines) - len(answers))

    @staticmethod
    def written(answer):
        """Whether a write was done; NOT_FOUND is for who deletes."""
        if answer is None:
            raise Failed(UNKNOWN, "the connection broke, or there was no answer")
        if answer == "OK" or answer.startswith("ERROR stored"):
            return
        if answer.startswith("ERROR rejected:") or answer == "NOT_FOUND":
            raise Failed(REJECTED, answer)
        if answer.startswith("ERROR unknown:"):
            raise Failed(UNKNOWN, answer)
        raise Odd(answer)

    @staticmethod
    def got(answer):
        if answer is None or answer.startswith("ERROR"):
            raise Failed(REJECTED, answer)
        return None if answer == "NOT_FOUND" else answer

    async def set(self, node, key, write):
        [answer] = await self.ask(node, f"SET {key.name} {key.value(write.number)}")
        self.written(answer)

    async def delete(self, node, key, write):
        [answer] = await self.ask(node, f"DEL {key.name}")
        self.written(answer)

    async def get(self, node, name):
        [answer] = await self.ask(node, f"GET {name}")
        return self.got(answer), None


class Grpc:
    """A gRPC package: a channel to each node, for all tasks."""

    deletes = False

    def __init__(self, nodes):
        import grpc
        options = [
            ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0),
            ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 500),
            ("grpc.max_reconnect_backoff_ms", 300)]
        self.grpc = grpc
        self.channels = [grpc.aio.insecure_channel(address, options) for address in nodes.grpc]
        self.stubs = [self.stub(channel) for channel in self.channels]

    def line(self):
        return self

    async def is_ready(self, node):
        return self.channels[node].get_state(try_to_connect=True) is self.grpc.ChannelConnectivity.READY

    async def call(self, method, request):
        try:
            return await method(request, timeout=CALL_S)
        except self.grpc.aio.AioRpcError as error:
            fate = dict(error.trailing_metadata() or ()).get("ringfort-outcome", UNKNOWN)
            raise Failed(fate, f"{error.code().name}: {error.details()}") from error

    async def get_or_none(self, method, request):
        """For packages whose missing keys are NOT_FOUND."""
        try:
            return (await self.call(method, request)).value, None
        except Failed as failed:
            if failed.why.startswith("NOT_FOUND"):
                return None, None
            raise

    async def close(self):
        for channel in self.channels:
            await channel.close()


class V1(Grpc):
    name, deletes = "ringfort.v1", True

    def stub(self, channel):
        from ringfort.v1 import kv_pb2, kv_pb2_grpc
        self.pb, self.consistency = kv_pb2, kv_pb2.CONSISTENCY_LINEARIZABLE
        return kv_pb2_grpc.KVStub(channel)

    async def set(self, node, key, write):
        request = self.pb.PutRequest(key=key.name.encode(), value=key.value(write.number).encode())
        answer = await self.call(self.stubs[node].Put, request)
        key.took_effect(write, answer.receipt.revision)

    async def delete(self, node, key, write):
        await self.call(self.stubs[node].Delete, self.pb.DeleteRequest(key=key.name.encode()))

    async def get(self, node, name):
        request = self.pb.GetRequest(key=name.encode(), consistency=self.consistency)
        answer = await self.call(self.stubs[node].Get, request)
        return (answer.value.decode(), answer.revision) if answer.found else (None, None)

    async def add(self, node, name):
        request = self.pb.IncrementRequest(key=name.encode(), by=1)
        return (await self.call(self.stubs[node].Increment, request)).value


class Proto(Grpc):
    name = "proto"

    def stub(self, channel):
        from proto import kv_pb2, kv_pb2_grpc
        self.pb = kv_pb2
        return kv_pb2_grpc.KVStub(channel)

    async def set(self, node, key, write):
        await self.call(self.stubs[node].Put, self.pb.PutRequest(key=key.name, value=key.value(write.number)))

    async def get(self, node, name):
        return await self.get_or_none(self.stubs[node].Get, self.pb.GetRequest(key=name))


class KvStore(Grpc):
    name = "kvstore.v1"

    def stub(self, channel):
        from kvstore.v1 import kvstore_pb2, kvstore_pb2_grpc
        self.pb = kvstore_pb2
        return kvstore_pb2_grpc.KVStoreStub(channel)

    async def set(self, node, key, write):
        ack = await self.call(self.stubs[node].Put, self.pb.KeyValue(key=key.name, value=key.value(write.number)))
        if not ack.ok:
            raise Odd(ack.message)

    async def get(self, node, name):
        return await self.get_or_none(self.stubs[node].Get, self.pb.Key(key=name))

    async def list(self, node):
        from google.protobuf.empty_pb2 import Empty
        try:
            return {row.key: row.value async for row in self.stubs[node].List(Empty(), timeout=10 * CALL_S)}
        except self.grpc.aio.AioRpcError as error:
            raise Failed(REJECTED, f"{error.code().name}: {error.details()}") from error


class Kv(Grpc):
    """Its writes have their numbers for versions. Some that are called "old" have a version that the key is past."""

    name, deletes = "kv", True

    def stub(self, channel):
        from kv import kv_pb2, kv_pb2_grpc
        self.pb = kv_pb2
        return kv_pb2_grpc.KeyValueStub(channel)

    async def set(self, node, key, write):
        value = key.value(write.number).encode()
        await self.call(self.stubs[node].Set, self.pb.SetRequest(key=key.name, value=value, version=write.number))

    async def set_old(self, node, key, write, version):
        value = key.value(write.number).encode()
        if write.number % 2:
            await self.call(self.stubs[node].Set, self.pb.SetRequest(key=key.name, value=value, version=version))
            return
        request = self.pb.ReplicateRequest(key=key.name, value=value, version=version)
        if (await self.call(self.stubs[node].Replicate, request)).ok:
            raise Odd(f"Replicate says that version {version} had an effect")

    async def delete(self, node, key, write):
        await self.call(self.stubs[node].Delete, self.pb.DeleteRequest(key=key.name, version=write.number))

    async def get(self, node, name):
        answer = await self.call(self.stubs[node].Get, self.pb.GetRequest(key=name))
        return (answer.value.decode() if answer.found else None), None


class Family(Grpc):
    name = "family"

    def stub(self, channel):
        from family import family_pb2, family_pb2_grpc
        self.pb = family_pb2
        return family_pb2_grpc.StorageServiceStub(channel)

    async def set(self, node, key, write):
        message = self.pb.StoredMessage(id=int(key.name), text=key.value(write.number))
        result = await self.call(self.stubs[node].Store, message)
        if not result.success:
            raise Odd(result.error)

    async def get(self, node, name):
        try:
            return (await self.call(self.stubs[node].Retrieve, self.pb.MessageId(id=int(name)))).text, None
        except Failed as failed:
            if failed.why.startswith("NOT_FOUND"):
                return None, None
            raise


DOORS = (Text, V1, Proto, KvStore, Kv, Family)


# --- load


class Figures:
    """One line of the table at the end."""

    def __init__(self):
        self.fates, self.why, self.reads = collections.Counter(), collections.Counter(), 0
        self.last, self.pause = time.monotonic(), 0.0

    def written(self, fate, why=""):
        self.fates[fate] += 1
        if fate != ACKNOWLEDGED:
            self.why[f"{fate}: {''.join('#' if c.isdecimal() else c for c in why)[:150]}"] += 1
        if fate == ACKNOWLEDGED:
            self.tick()

    def tick(self):
        now = time.monotonic()
        self.pause, self.last = max(self.pause, now - self.last), now


class Place:
    """Which node a writer asks: its own, but for some seconds the next one after that has failed."""

    def __init__(self, node, dice):
        self.own, self.node, self.dice, self.until = node, node, dice, 0.0

    def now(self):
        if time.monotonic() > self.until:
            self.node = self.own
        return self.node

    def leave(self):
        self.node, self.until = (self.node + 1) % 3, time.monotonic() + self.dice.uniform(2, 5)


class Load:
    def __init__(self, nodes, asked, dice):
        self.nodes, self.asked, self.dice = nodes, asked, dice
        self.doors = {door.name: door(nodes) for door in DOORS if door.name in asked.doors}
        self.figures = {name: Figures() for name in self.doors}
        self.keys = []
        for at, name in enumerate(self.doors):
            for number in range(asked.writers):
                key = str(7000 + number) if name == "family" else f"{name}/{number}"
                self.keys.append(Key(key, name, is_versioned=name == "kv"))
        self.counters = []
        if V1.name in self.doors:
            self.counters = [Counter(f"sum/{number}", V1.name) for number in range(2)]
            self.figures["its counters"] = Figures()
            if asked.stale:
                from ringfort.v1 import kv_pb2
                self.doors[V1.name].consistency = kv_pb2.CONSISTENCY_STALE
        self.findings, self.timeline = [], []

    def find(self, line):
        print(f"FOUND: {line}", flush=True)
        self.findings.append(line)

    async def pick(self, line, node):
        """The next node that takes calls, from this one on. None once the time is over."""
        while time.monotonic() < self.until:
            for other in range(node, node + 3):
                if await line.is_ready(other % 3):
                    return other % 3
            await asyncio.sleep(0.02)
        return None

    async def pace(self, due):
        """Waits until a call's turn has come; says when the next one's is."""
        now = time.monotonic()
        await asyncio.sleep(max(0.0, due - now))
        return max(now, due) + self.dice.uniform(0.5, 1.5) / self.asked.rate

    async def writer(self, key, node):
        door, figures = self.doors[key.door], self.figures[key.door]
        line, dice, due = door.line(), self.dice, time.monotonic()
        place, last = Place(node, dice), None
        while True:
            due = await self.pace(due)
            node = await self.pick(line, place.now())
            if node is None:
                return
            chance = dice.random()
            if key.door == "text" and chance < 0.15:
                ok = await self.burst(line, node, key, figures)
            else:
                is_done = last is not None and last.fate == ACKNOWLEDGED and last.number > 1
                old = key.is_versioned and chance > 0.9 and is_done
                delete = door.deletes and chance < 0.2 and key.may_delete and key.next > 1
                write = key.begin("old" if old else "delete" if delete else "set", node)
                try:
                    if old:
                        await line.set_old(node, key, write, dice.randint(1, last.number - 1))
                    elif delete:
                        await line.delete(node, key, write)
                    else:
                        await line.set(node, key, write)
                    write.fate, write.end, why = ACKNOWLEDGED, time.monotonic(), ""
                except Failed as failed:
                    write.fate, why = failed.fate, failed.why
                    if why == "NOT_FOUND":
                        # A delete that found nothing: it has read that.
                        key.read(None, write.begin, node, key.door)
                except Odd as odd:
                    self.find(f"{key.door}: an odd answer, {odd}: {write.told()}")
                    why = "odd"
                figures.written(write.fate, why)
                ok = write.fate == ACKNOWLEDGED or why == "NOT_FOUND"
                if not ok and delete and not key.is_versioned:
                    # What is not there after that could not be told apart.
                    key.may_delete = False
                if not old:
                    last = write
            if not ok:
                place.leave()

    async def burst(self, line, node, key, figures):
        """Three writes and a read at once. The read comes after the last write."""
        had_doubt = any(write.fate == UNKNOWN for write in key.writes.values())
        writes = [key.begin("set", node) for _ in range(3)]
        sets = [f"SET {key.name} {key.value(write.number)}" for write in writes]
        *answers, got = await line.ask(node, *sets, f"GET {key.name}")
        now, ok = time.monotonic(), True
        for write, answer in zip(writes, answers, strict=True):
            try:
                line.written(answer)
                write.fate, write.end, why = ACKNOWLEDGED, now, ""
            except Failed as failed:
                write.fate, why, ok = failed.fate, failed.why, False
            except Odd as odd:
                why, ok = "odd", False
                self.find(f"text: an odd answer, {odd}: {write.told()}")
            figures.written(write.fate, why)
        try:
            text = line.got(got)
        except Failed:
            return False
        key.read(text, writes[0].begin, node, key.door)
        figures.reads += 1
        if ok and not had_doubt and text != key.value(writes[-1].number):
            self.find(
                f"text: out of order: the answer to the GET after three SETs was {text and text[:80]!r}: "
                f"{writes[-1].told()}")
        return ok

    async def reader(self, name, node):
        door, figures, dice = self.doors[name], self.figures[name], self.dice
        line, due = door.line(), time.monotonic()
        own = [key for key in self.keys if key.door == name]
        all_keys = own if name == "family" else self.keys
        while True:
            due = await self.pace(due)
            node = await self.pick(line, dice.randrange(3))
            if node is None:
                return
            if name == V1.name and dice.random() < 0.1:
                counter = dice.choice(self.counters)
                await self.read_counter(counter, node)
                continue
            key = dice.choice(all_keys if dice.random() < 0.3 else own)
            try:
                await self.read(line, name, key, node)
                figures.reads += 1
            except Failed:
                pass

    async def read(self, line, name, key, node):
        begin = time.monotonic()
        text, revision = await line.get(node, key.name)
        key.read(text, begin, node, name, revision)

    async def read_counter(self, counter, node):
        read = Op("read", 0, time.monotonic(), door=counter.door, node=node)
        try:
            text, _ = await self.doors[V1.name].get(node, counter.name)
        except Failed:
            return False
        read.number, read.end = int(text or 0), time.monotonic()
        counter.reads.append(read)
        self.figures["its counters"].reads += 1
        return True

    async def adder(self, counter, node):
        line, figures, due = self.doors[V1.name], self.figures["its counters"], time.monotonic()
        place = Place(node, self.dice)
        while True:
            due = await self.pace(due)
            node = await self.pick(line, place.now())
            if node is None:
                return
            add, why = Op("add 1:", None, time.monotonic(), door=counter.door, node=node), ""
            counter.adds.append(add)
            try:
                add.number = await line.add(node, counter.name)
                add.fate, add.end = ACKNOWLEDGED, time.monotonic()
            except Failed as failed:
                add.fate, why = failed.fate, failed.why
                place.leave()
            figures.written(add.fate, why)

    async def faults(self):
        nodes, turn = self.nodes, self.dice.randrange(3)
        await asyncio.sleep(HEALED_S)
        for name in itertools.cycle(self.asked.faults):
            if time.monotonic() + FAULTS[name] + HEALED_S > self.until:
                return
            turn = (turn + self.dice.randint(1, 2)) % 3
            self.say(name if name == "power" else f"{name} node{turn + 1}")
            match name:
                case "kill":
                    nodes.kill(turn)
                case "power":
                    nodes.kill(*NODES)
                case "stop":
                    nodes.running[turn].send_signal(signal.SIGSTOP)
                case "cut":
                    nodes.cut(turn)
            await asyncio.sleep(FAULTS[name])
            nodes.mend()
            self.say("over")
            await asyncio.sleep(HEALED_S)

    def say(self, what):
        self.timeline.append((time.monotonic(), what))
        print(f"{time.monotonic() - self.begun:6.1f} s  {what}", flush=True)

    async def watch(self):
        while not self.nodes.ended():
            await asyncio.sleep(0.2)
        n = self.nodes.ended()[0]
        code = self.nodes.running[n].returncode
        self.find(f"node{n + 1} ended by itself, with code {code}: {self.nodes.home}/node{n + 1}.log")

    async def run(self):
        self.begun = time.monotonic()
        self.until = self.begun + self.asked.seconds
        for figures in self.figures.values():
            figures.last = self.begun
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self.watch())
            work = [self.writer(key, at % 3) for at, key in enumerate(self.keys)]
            work += [self.reader(name, at % 3) for name in self.doors for at in range(self.asked.readers)]
            work += [self.adder(counter, at) for counter in self.counters for at in NODES]
            load = [tasks.create_task(task) for task in work]
            if self.asked.faults:
                load.append(tasks.create_task(self.faults()))
            await asyncio.wait(load)
            watching.cancel()
        for figures in self.figures.values():
            figures.tick()
        await self.finish()
        for door in self.doors.values():
            if isinstance(door, Grpc):
                await door.close()

    async def finish(self):
        """Every node is asked for every key: through ringfort.v1, the door that wrote it, and another one."""
        self.nodes.mend()
        for n in NODES:
            if not await asyncio.to_thread(self.nodes.wait, n, time.monotonic() + BACK_S):
                self.find(f"node{n + 1} does not serve {BACK_S:.0f} s after the last fault")
                return
        lines = {name: door.line() for name, door in self.doors.items()}
        for node in NODES:
            for key in self.keys:
                others = [name for name in lines if name not in (key.door, "family")]
                for name in {key.door, *filter(V1.name.__eq__, lines), self.dice.choice(others or [key.door])}:
                    what = f"{key.name} through {name}, node{node + 1}"
                    await self.surely(what, self.read_last, lines[name], name, key, node)
            for counter in self.counters:
                await self.surely(f"{counter.name} through node{node + 1}", self.read_counter, counter, node)
            if KvStore.name in lines:
                what = f"all keys through kvstore.v1, node{node + 1}"
                await self.surely(what, self.read_list, lines[KvStore.name], node)
        told = await asyncio.to_thread(self.nodes.check, time.monotonic() + BACK_S)
        if told:
            self.find(told)

    async def read_last(self, line, name, key, node):
        if not await line.is_ready(node):
            return False
        await self.read(line, name, key, node)
        return True

    async def read_list(self, line, node):
        if not await line.is_ready(node):
            return False
        begin = time.monotonic()
        rows = await line.list(node)
        for key in self.keys:
            key.read(rows.get(key.name), begin, node, "kvstore.v1's List")
        return True

    async def surely(self, what, read, *words):
        until, why = time.monotonic() + BACK_S, "no connection"
        while time.monotonic() < until:
            try:
                if await read(*words):
                    return
            except Failed as failed:
                why = failed.why
            await asyncio.sleep(0.05)
        self.find(f"can't be read {BACK_S:.0f} s after the last fault: {what}: {why}")

    def verdict(self):
        """Prints the table; the findings of all."""
        found = collections.Counter()
        for key in [*self.keys, *self.counters]:
            line = "its counters" if isinstance(key, Counter) else key.door
            for finding in key.judge():
                found[line] += 1
                if found[line] <= 20:
                    self.find(f"{key.door}, key {key.name}: {finding}")
        print("\ndoor            acknowledged  rejected  unknown  late   reads  longest pause  findings")
        for name, figures in self.figures.items():
            fates = figures.fates
            late = sum(key.late() for key in self.keys if key.door == name)
            print(
                f"{name:14}{fates[ACKNOWLEDGED]:>14,}{fates[REJECTED]:>10,}{fates[UNKNOWN]:>9,}{late:>6,}"
                f"{figures.reads:>8,}{figures.pause:>13.2f} s{found[name]:>10}")
            if self.asked.reasons:
                for why, times in figures.why.most_common(12):
                    print(f"    {times:>6,} {why}")
        if self.findings or self.asked.keep:
            with open(self.nodes.home / "history.jsonl", "w") as file:
                file.write(json.dumps({"at": time.monotonic(), "clock": time.time()}) + "\n")
                for at, what in self.timeline:
                    file.write(json.dumps({"at": at, "fault": what}) + "\n")
                for key in self.keys:
                    file.write(json.dumps({"key": key.name, "revisions": key.revisions}) + "\n")
                    for op in sorted([*key.writes.values(), *key.reads], key=lambda op: op.begin):
                        file.write(json.dumps({"key": key.name, **dataclasses.asdict(op)}) + "\n")
                for counter in self.counters:
                    for op in sorted([*counter.adds, *counter.reads], key=lambda op: op.begin):
                        file.write(json.dumps({"key": counter.name, **dataclasses.asdict(op)}) + "\n")
        return self.findings


# --- a SIGKILL between a SET and its answer


class Shard:
    """A key of the text port and a counter that share a shard with nothing else. The shard counts its changes: so one
    sees how often each write took effect, and not only whether."""

    def __init__(self, tag):
        self.key, self.sum = Key(f"set{{{tag}}}", "text"), f"sum{{{tag}}}"
        self.first = None
        # Changes so far, and writes that may still come.
        self.sets = self.adds = self.open_sets = self.open_adds = 0


class Between:
    def __init__(self, nodes, asked, dice):
        import grpc
        from ringfort.v1 import cluster_pb2, cluster_pb2_grpc, kv_pb2, kv_pb2_grpc
        self.grpc, self.kv, self.cluster = grpc, kv_pb2, cluster_pb2
        self.nodes, self.asked, self.dice = nodes, asked, dice
        options = [
            ("grpc.enable_http_proxy", 0), ("grpc.initial_reconnect_backoff_ms", 20),
            ("grpc.min_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 50)]
        self.channels = [grpc.insecure_channel(address, options) for address in nodes.grpc]
        self.stubs = [kv_pb2_grpc.KVStub(channel) for channel in self.channels]
        self.states = [cluster_pb2_grpc.ClusterStub(channel) for channel in self.channels]
        self.lines = [None] * 3
        self.fates, self.add_fates, self.kills = collections.Counter(), collections.Counter(), collections.Counter()
        self.came, self.findings, self.answered = 0, [], 0

    def find(self, line):
        print(f"FOUND: {line}", flush=True)
        self.findings.append(line)

    def asks(self, stubs, call, *, first=0):
        """Asks one node after the other until there is an answer."""
        until = time.monotonic() + BACK_S
        for node in itertools.cycle(list(NODES)[first:] + list(NODES)[:first]):
            try:
                return call(stubs[node])
            except self.grpc.RpcError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def state(self):
        request = self.cluster.GetClusterStateRequest()
        return self.asks(self.states, lambda stub: stub.GetClusterState(request, timeout=CALL_S))

    def shards(self):
        """Some shards with a key each: as many as there are nodes, times four."""
        state, shards = self.state(), {}
        for tag in itertools.count():
            slot = crc16(str(tag).encode()) % 16384
            number = next(s.shard for s in state.shards if any(r.first <= slot <= r.last for r in s.slots))
            if number not in shards:
                shards[number] = Shard(tag)
            if len(shards) == 12:
                return list(shards.items())

    def leader(self, number):
        state = self.state()
        leads = {shard.shard: shard.leader_node for shard in state.shards}.get(number, 0)
        names = {node.id: node.name for node in state.nodes}
        return int(names[leads].removeprefix("node")) - 1 if leads in names else None

    def look(self, shard):
        """How many changes there were of each kind, and what the key is: all at one moment."""
        begin, first = time.monotonic(), self.dice.randrange(3)
        request = self.kv.GetManyRequest(keys=[shard.key.name.encode(), shard.sum.encode()])
        answer = self.asks(self.stubs, lambda stub: stub.GetMany(request, timeout=CALL_S), first=first)
        row, counter = answer.rows
        text = row.value.decode() if row.found else None
        shard.key.read(text, begin, first, V1.name, row.revision if row.found else None)
        adds = int(counter.value) if counter.found else 0
        if shard.first is None:
            shard.first, shard.adds = answer.shard_revision - adds, adds
        return answer.shard_revision - shard.first - adds, adds, text

    def settle(self, shard, kind, before, now, fate, write):
        """Compares changes of one kind with what was told. `write` is None if nothing was asked since."""
        change, done = now - before, int(fate == ACKNOWLEDGED)
        may_come = getattr(shard, f"open_{kind}") + int(fate == UNKNOWN)
        if not done <= change <= done + may_come:
            self.find(
                f"{shard.key.name}: {change} changes ({kind}) where {done} was acknowledged and {may_come} may have "
                f"come: {write.told() if write else 'nothing was asked'}")
        setattr(shard, f"open_{kind}", max(0, may_come - (change - done)))
        setattr(shard, kind, now)

    def settle_late(self, shard):
        """The same for what has come since the round was over."""
        sets, adds, _ = self.look(shard)
        self.settle(shard, "sets", shard.sets, sets, None, None)
        self.settle(shard, "adds", shard.adds, adds, None, None)

    def line(self, node):
        until = time.monotonic() + BACK_S
        while self.lines[node] is None:
            try:
                self.lines[node] = socket.create_connection(self.nodes.text[node], 1)
                self.lines[node].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
        return self.lines[node]

    def answer(self, node):
        """The line that comes, or None if the connection breaks."""
        line, said = self.lines[node], b""
        line.settimeout(15)
        try:
            while not said.endswith(b"\n"):
                more = line.recv(4096)
                if not more:
                    break
                said += more
        except OSError:
            pass
        if said.endswith(b"\n"):
            return said[:-1].decode()
        line.close()
        self.lines[node] = None
        return None

    def round(self, at, number, shard):
        """One kill. What is answered before its turn has come is judged, and does not count."""
        asked, is_under_way = at % 3, False
        while not is_under_way:
            leader = self.leader(number)
            if leader is None:
                time.sleep(0.02)
                continue
            victim = asked if at % 2 == 0 else leader
            line = self.line(asked)
            write = shard.key.begin("set", asked)
            request = self.kv.IncrementRequest(key=shard.sum.encode(), by=1)
            add = self.stubs[asked].Increment.future(request, timeout=10)
            try:
                line.sendall(f"SET {shard.key.name} {shard.key.value(write.number)}\n".encode())
                is_under_way = not select.select([line], [], [], self.dice.uniform(0, 0.003))[0]
            except OSError:
                pass
            if is_under_way:
                self.nodes.kill(victim)
                self.nodes.start(victim)
                who = "the node asked" if victim == asked else "the leader, another one"
                self.kills["the node asked, which led" if victim == asked == leader else who] += 1
            else:
                self.answered += 1
            self.judge(shard, write, self.answer(asked), add, is_under_way)
        if self.lines[victim] is not None:
            # Its answer came, or it was not the node asked; the connection is gone either way.
            self.lines[victim].close()
            self.lines[victim] = None
        if not self.nodes.wait(victim, time.monotonic() + BACK_S):
            self.find(f"node{victim + 1} does not serve {BACK_S:.0f} s after it was killed")

    def judge(self, shard, write, answer, add, counts):
        try:
            TextLine.written(answer)
            write.fate, write.end = ACKNOWLEDGED, time.monotonic()
        except Failed as failed:
            write.fate = failed.fate
        except Odd as odd:
            self.find(f"an odd answer, {odd}: {write.told()}")
        try:
            total, add_fate = add.result(timeout=20).value, ACKNOWLEDGED
        except self.grpc.RpcError as error:
            total, add_fate = None, dict(error.trailing_metadata() or ()).get("ringfort-outcome", UNKNOWN)
        if counts:
            self.fates[write.fate] += 1
            self.add_fates[add_fate] += 1
        sets, adds, text = self.look(shard)
        self.settle(shard, "sets", shard.sets, sets, write.fate, write)
        self.settle(shard, "adds", shard.adds, adds, add_fate, write)
        if total is not None and total > adds:
            self.find(f"{shard.sum}: {adds} was read after an increment to {total} was acknowledged")
        if write.fate == UNKNOWN and text == shard.key.value(write.number):
            self.came += 1

    def run(self):
        for n in NODES:
            if not self.nodes.wait(n, time.monotonic() + BACK_S):
                raise SystemExit(f"node{n + 1} does not serve")
        shards = self.shards()
        for _, shard in shards:
            self.look(shard)
        begun = time.monotonic()
        for at in range(self.asked.between):
            number, shard = shards[at % len(shards)]
            self.settle_late(shard)
            self.round(at, number, shard)
            for n in self.nodes.ended():
                self.find(f"node{n + 1} ended by itself, with code {self.nodes.running[n].returncode}")
            if len(self.findings) > 20:
                break
            if (at + 1) % 50 == 0:
                print(f"{at + 1} kills, {time.monotonic() - begun:.0f} s, {len(self.findings)} findings", flush=True)
        for _, shard in shards:
            self.settle_late(shard)
            for finding in shard.key.judge():
                self.find(f"text, key {shard.key.name}: {finding}")
        told = self.nodes.check(time.monotonic() + BACK_S)
        if told:
            self.find(told)
        sets, adds = self.fates, self.add_fates
        kinds = ", ".join(f"{name}: {times}" for name, times in sorted(self.kills.items()))
        print(
            f"{self.kills.total()} kills between a SET and its answer, in {time.monotonic() - begun:.0f} s ({kinds}); "
            f"{self.answered} more SETs were answered before\n"
            f"SET        {sets[ACKNOWLEDGED]} acknowledged, {sets[REJECTED]} rejected, {sets[UNKNOWN]} unknown, of "
            f"which {self.came} took effect\n"
            f"Increment  {adds[ACKNOWLEDGED]} acknowledged, {adds[REJECTED]} rejected, {adds[UNKNOWN]} unknown\n"
            f"wrong      {len(self.findings)}")
        for channel in self.channels:
            channel.close()
        return self.findings


# --- the judge, judged


def has_order(key):
    """Whether some order explains a small history, by trying all."""
    writes = [(write, write.fate == ACKNOWLEDGED) for write in key.valid_writes()]
    ops = [*writes, *((read, True) for read in key.reads)]

    def goes_on(left, now):
        if not any(must for _, must in left):
            return True
        first_end = min(op.end for op, must in left if must)
        for at, (op, _) in enumerate(left):
            if op.begin > first_end:
                continue
            rest = left[:at] + left[at + 1:]
            if op.what == "read":
                shown = None if now == 0 or key.writes[now].what == "delete" else now
                if op.number == shown and goes_on(rest, now):
                    return True
            elif goes_on(rest, max(now, op.number) if key.is_versioned else op.number):
                return True
        return False

    return goes_on(ops, 0)


def check_judge(dice):
    verdicts = collections.Counter()
    for case in range(20_000):
        is_versioned, deletes = case % 2 == 0, case % 4 >= 2
        key, clock = Key("k", "none", is_versioned), 0.0
        for _ in range(dice.randint(1, 4)):
            write = key.begin("delete" if deletes and dice.random() < 0.4 else "set", 0)
            write.begin = clock = clock + dice.uniform(0.1, 1)
            clock += dice.uniform(0.1, 2)
            write.fate = dice.choice([ACKNOWLEDGED, ACKNOWLEDGED, UNKNOWN])
            write.end = clock if write.fate == ACKNOWLEDGED else NEVER
        for _ in range(dice.randint(1, 4)):
            begin = dice.uniform(0, clock)
            number = dice.choice([None, *(n for n, write in key.writes.items() if write.what == "set")])
            key.reads.append(Op("read", number, begin, begin + dice.uniform(0.01, clock)))
        found, right = bool(key.judge()), not has_order(key)
        verdicts[found, right] += 1
        # Of reads that may come from several deletes the judge leaves some out.
        if found != right and (found or is_versioned or not deletes):
            ops = [op.told() for op in [*key.writes.values(), *key.reads]]
            print(f"the judge {'finds' if found else 'misses'} something:", *ops, sep="\n  ")
            return 1
    print(
        f"the judge is right: {verdicts[False, False]:,} histories have an order, {verdicts[True, True]:,} have none, "
        f"and {verdicts[False, True]:,} with deletes that have none are let pass")
    return 0


# --- what is needed


def need_grpc():
    """Goes on in a Python that has grpcio and its tools: as examples/coming-from/clients.sh makes it."""
    try:
        import grpc
        import grpc_tools
        return
    except ImportError:
        pass
    if "RINGFORT_DOORS" in os.environ:
        raise SystemExit(f"{sys.executable} has no grpcio and grpcio-tools")
    python = os.environ.get("RINGFORT_PYTHON")
    if python is None:
        venv, wanted = TARGET / "foreign" / "venv", ROOT / "examples" / "coming-from" / "requirements.txt"
        made = venv / "requirements.txt"
        if not made.exists() or made.read_bytes() != wanted.read_bytes():
            shutil.rmtree(venv, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            pip = [venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wanted]
            subprocess.run(pip, check=True)
            shutil.copy(wanted, made)
        python = str(venv / "bin" / "python")
    os.execve(python, [python, *sys.argv], {**os.environ, "RINGFORT_DOORS": "again"})


def make_stubs(home):
    stubs, protos = home / "stubs", ROOT / "crates" / "proto" / "proto"
    stubs.mkdir()
    files = ["family/family.proto", "proto/kv.proto", "kvstore/v1/kvstore.proto", "kv/kv.proto", "ringfort/v1/kv.proto",
             "ringfort/v1/cluster.proto"]
    out = [f"--python_out={stubs}", f"--grpc_python_out={stubs}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", protos, *out, *files], check=True)
    sys.path.insert(0, str(stubs))


def listed(known):
    def parse(text):
        names = [name for name in text.split(",") if name]
        if strange := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(strange))}: there are {', '.join(known)}")
        return names
    return parse


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    doors = [door.name for door in DOORS]
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--faults", type=listed(FAULTS), default=list(FAULTS), help="in this order; empty for none")
    parser.add_argument("--doors", type=listed(doors), default=doors)
    parser.add_argument("--writers", type=int, default=8, help="keys of each door")
    parser.add_argument("--readers", type=int, default=6, help="of each door")
    parser.add_argument("--rate", type=float, default=15, help="calls a second of each writer and reader")
    parser.add_argument("--between", type=int, default=0, metavar="N", help="SIGKILL between a SET and its answer")
    parser.add_argument("--binary", type=pathlib.Path, default=TARGET / "release" / "ringfort")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--stale", action="store_true", help="stale reads through ringfort.v1: the judge finds some")
    parser.add_argument("--reasons", action="store_true", help="print why writes were rejected or unknown")
    parser.add_argument("--keep", action="store_true", help="keep logs and data, whatever is found")
    parser.add_argument("--check-judge", action="store_true")
    asked = parser.parse_args()
    dice = random.Random(asked.seed)
    if asked.check_judge:
        return check_judge(dice)
    apart = not asked.between and "cut" in asked.faults
    if apart and (os.geteuid() != 0 or shutil.which("ip") is None):
        parser.error("the fault cut takes root and iproute2: leave it out with --faults kill,stop,power")
    if not os.access(asked.binary, os.X_OK):
        parser.error(f"no {asked.binary}: build it first, or give --binary")
    need_grpc()
    # Also where a shell has set the first aside for what runs in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    home = pathlib.Path(tempfile.mkdtemp(prefix="ringfort-doors-"))
    timeout = "10s" if asked.between else f"{CALL_S:.0f}s"
    nodes = Nodes(home, asked.binary.resolve(), apart, ["--text-timeout", timeout])
    findings = ["it did not come to its end"]
    try:
        make_stubs(home)
        nodes.build()
        print(f"seed {asked.seed}, in {home}", flush=True)
        for n in NODES:
            nodes.start(n)
        if asked.between:
            findings = Between(nodes, asked, dice).run()
        else:
            findings = asyncio.run(loaded(nodes, asked, dice))
    except KeyboardInterrupt:
        findings = []
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        nodes.close()
        if not findings and not asked.keep:
            shutil.rmtree(home)
        else:
            print(f"logs and data: {home}", flush=True)
    return 1 if findings else 0


async def loaded(nodes, asked, dice):
    for n in NODES:
        if not await asyncio.to_thread(nodes.wait, n, time.monotonic() + BACK_S):
            raise SystemExit(f"node{n + 1} does not serve")
    load = Load(nodes, asked, dice)
    async with asyncio.timeout(asked.seconds + 5 * BACK_S):
        await load.run()
    return load.verdict()


if __name__ == "__main__":
    sys.exit(main())
