"""Load on all doors at the same time: a writer for each key, readers of each door, and clients that add to counters."""

import asyncio
import time

from .clients import DOORS, V1
from .clients.text import check_written, value_or_none
from .cluster import NODES
from .figures import Figures
from .history import Counter, Key, Op
from .outcome import ACKNOWLEDGED, UNKNOWN, Failed, Odd

# The counters' line in the table.
COUNTERS = "its counters"


class Workload:
    def __init__(self, nodes, options, rng, history, findings):
        self.options, self.rng, self.history, self.findings = options, rng, history, findings
        self.doors = {door.name: door(nodes) for door in DOORS if door.name in options.doors}
        self.figures = {name: Figures() for name in self.doors}
        for name in self.doors:
            for number in range(options.writers):
                key = str(7000 + number) if name == "family" else f"{name}/{number}"
                history.keys.append(Key(key, name, is_versioned=name == "kv"))
        if V1.name in self.doors:
            history.counters = [Counter(f"sum/{number}", V1.name) for number in range(2)]
            self.figures[COUNTERS] = Figures()
            if options.stale:
                from ringfort.v1 import kv_pb2
                self.doors[V1.name].consistency = kv_pb2.CONSISTENCY_STALE

    def work(self, begun, until):
        """The work of all clients, a coroutine each. It begins no calls after `until`."""
        self.until = until
        for figures in self.figures.values():
            figures.last = begun
        work = [self.writer(key, at % 3) for at, key in enumerate(self.history.keys)]
        work += [self.reader(name, at % 3) for name in self.doors for at in range(self.options.readers)]
        work += [self.adder(counter, at) for counter in self.history.counters for at in NODES]
        return work

    async def close(self):
        for door in self.doors.values():
            await door.close()

    async def pick(self, client, node):
        """The next node that takes calls, from this one on. None once the time is over."""
        while time.monotonic() < self.until:
            for other in range(node, node + 3):
                if await client.is_ready(other % 3):
                    return other % 3
            await asyncio.sleep(0.02)
        return None

    async def pace(self, due):
        """Waits until a call's turn has come; returns when the next one's is."""
        now = time.monotonic()
        await asyncio.sleep(max(0.0, due - now))
        return max(now, due) + self.rng.uniform(0.5, 1.5) / self.options.rate

    async def writer(self, key, node):
        client, due = self.doors[key.door].client(), time.monotonic()
        preferred, last = PreferredNode(node, self.rng), None
        while True:
            due = await self.pace(due)
            node = await self.pick(client, preferred.now())
            if node is None:
                return
            chance = self.rng.random()
            if key.door == "text" and chance < 0.15:
                ok = await self.burst(client, node, key)
            else:
                write = key.begin(self.kind_of_write(key, chance, last), node)
                ok = await self.write(client, node, key, write, last)
                if write.what != "old":
                    last = write
            if not ok:
                preferred.leave()

    def kind_of_write(self, key, chance, last):
        """An "old" write has a version that the key is past: so its last write has to be acknowledged."""
        is_done = last is not None and last.fate == ACKNOWLEDGED and last.number > 1
        if key.is_versioned and chance > 0.9 and is_done:
            return "old"
        if self.doors[key.door].deletes and chance < 0.2 and key.may_delete and key.next > 1:
            return "delete"
        return "set"

    async def write(self, client, node, key, write, last):
        """Whether it went well."""
        try:
            if write.what == "old":
                await client.set_old(node, key, write, self.rng.randint(1, last.number - 1))
            elif write.what == "delete":
                await client.delete(node, key, write)
            else:
                await client.set(node, key, write)
            write.fate, write.end, why = ACKNOWLEDGED, time.monotonic(), ""
        except Failed as failed:
            write.fate, why = failed.fate, failed.why
            if why == "NOT_FOUND":
                # A delete that found nothing: it has read that.
                key.record_read(None, write.begin, node, key.door)
        except Odd as odd:
            self.findings.add(f"{key.door}: an odd answer, {odd}: {write.describe()}")
            why = "odd"
        self.figures[key.door].written(write.fate, why)
        ok = write.fate == ACKNOWLEDGED or why == "NOT_FOUND"
        if not ok and write.what == "delete" and not key.is_versioned:
            # What is not there after that could not be told apart.
            key.may_delete = False
        return ok

    async def burst(self, client, node, key):
        """Three writes and a read at once. The read comes after the last write. Returns whether all went well."""
        figures = self.figures[key.door]
        had_doubt = any(write.fate == UNKNOWN for write in key.writes.values())
        writes = [key.begin("set", node) for _ in range(3)]
        sets = [f"SET {key.name} {key.value(write.number)}" for write in writes]
        *answers, got = await client.ask(node, *sets, f"GET {key.name}")
        now, ok = time.monotonic(), True
        for write, answer in zip(writes, answers, strict=True):
            try:
                check_written(answer)
                write.fate, write.end, why = ACKNOWLEDGED, now, ""
            except Failed as failed:
                write.fate, why, ok = failed.fate, failed.why, False
            except Odd as odd:
                why, ok = "odd", False
                self.findings.add(f"text: an odd answer, {odd}: {write.describe()}")
            figures.written(write.fate, why)
        try:
            text = value_or_none(got)
        except Failed:
            return False
        key.record_read(text, writes[0].begin, node, key.door)
        figures.reads += 1
        if ok and not had_doubt and text != key.value(writes[-1].number):
            self.findings.add(
                f"text: out of order: the answer to the GET after three SETs was {text and text[:80]!r}: "
                f"{writes[-1].describe()}")
        return ok

    async def reader(self, name, node):
        figures, rng = self.figures[name], self.rng
        client, due = self.doors[name].client(), time.monotonic()
        own = [key for key in self.history.keys if key.door == name]
        all_keys = own if name == "family" else self.history.keys
        while True:
            due = await self.pace(due)
            node = await self.pick(client, rng.randrange(3))
            if node is None:
                return
            if name == V1.name and rng.random() < 0.1:
                counter = rng.choice(self.history.counters)
                await self.read_counter(counter, node)
                continue
            key = rng.choice(all_keys if rng.random() < 0.3 else own)
            try:
                await self.read(client, name, key, node)
                figures.reads += 1
            except Failed:
                pass

    async def read(self, client, name, key, node):
        begin = time.monotonic()
        text, revision = await client.get(node, key.name)
        key.record_read(text, begin, node, name, revision)

    async def read_counter(self, counter, node):
        """Whether it was answered."""
        read = Op("read", 0, time.monotonic(), door=counter.door, node=node)
        try:
            text, _ = await self.doors[V1.name].get(node, counter.name)
        except Failed:
            return False
        read.number, read.end = int(text or 0), time.monotonic()
        counter.reads.append(read)
        self.figures[COUNTERS].reads += 1
        return True

    async def adder(self, counter, node):
        client, figures, due = self.doors[V1.name].client(), self.figures[COUNTERS], time.monotonic()
        preferred = PreferredNode(node, self.rng)
        while True:
            due = await self.pace(due)
            node = await self.pick(client, preferred.now())
            if node is None:
                return
            add, why = Op("add 1:", None, time.monotonic(), door=counter.door, node=node), ""
            counter.adds.append(add)
            try:
                add.number = await client.add(node, counter.name)
                add.fate, add.end = ACKNOWLEDGED, time.monotonic()
            except Failed as failed:
                add.fate, why = failed.fate, failed.why
                preferred.leave()
            figures.written(add.fate, why)


class PreferredNode:
    """Which node a writer asks: its own, but for some seconds the next one after that has failed."""

    def __init__(self, node, rng):
        self.own, self.node, self.rng, self.until = node, node, rng, 0.0

    def now(self):
        if time.monotonic() > self.until:
            self.node = self.own
        return self.node

    def leave(self):
        self.node, self.until = (self.node + 1) % 3, time.monotonic() + self.rng.uniform(2, 5)
