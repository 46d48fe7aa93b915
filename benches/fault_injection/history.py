"""What was asked, what was answered, and when: what the judge works on.

Each key has one writer, and each of its writes has a number of its own, which is part of the value. So a read shows
which write it has read.
"""

import dataclasses
import json
import math
import time

from .outcome import REJECTED, UNKNOWN

NEVER = math.inf


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

    def describe(self):
        end = "never answered" if self.end == NEVER else f"{self.end:.4f}"
        fate = "" if self.what == "read" else f", {self.fate}"
        return f"{self.what} {self.number} through {self.door}, node{self.node + 1}, {self.begin:.4f} to {end}{fate}"


class Key:
    """One key, and all that happened to it."""

    def __init__(self, name, door, is_versioned=False):
        self.name, self.door, self.is_versioned = name, door, is_versioned
        self.writes, self.reads, self.findings = {}, [], []
        # By the number of a write: the revision of the shard at which it took effect, where this is known.
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

    def record_read(self, text, begin, node, door, revision=None):
        """Records what a read returned. A value that nobody wrote is a finding at once."""
        read = Op("read", None, begin, time.monotonic(), door=door, node=node)
        if text is not None:
            word = text.split(" ", 1)[0]
            read.number = int(word) if word.isdecimal() else -1
            write = self.writes.get(read.number)
            if write is None or text != self.value(read.number):
                self.findings.append(f"nobody wrote what was read, {text[:80]!r}: {read.describe()}")
                return
            self.record_revision(write, revision)
        self.reads.append(read)

    def record_revision(self, write, revision):
        """A write has one revision of its shard, if it was done once."""
        if revision is None or self.revisions.setdefault(write.number, revision) == revision:
            return
        self.findings.append(
            f"a write took effect twice, at revisions {self.revisions[write.number]} and {revision} of its shard: "
            f"{write.describe()}")

    def valid_writes(self):
        """Those that may take effect."""
        return [write for write in self.writes.values() if write.fate != REJECTED and write.what != "old"]


class Counter:
    """A number that several clients add one to. The number of an addition is the sum that was answered."""

    def __init__(self, name, door):
        self.name, self.door = name, door
        self.adds, self.reads = [], []


class History:
    """All keys and counters of a run, and its faults."""

    def __init__(self):
        self.keys, self.counters, self.timeline = [], [], []

    def save(self, path):
        """Writes it to a file, a JSON object a line."""
        with open(path, "w") as file:
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
