"""Gibbons and Korach, Testing Shared Memories (1997), for a register whose writes all have values of their own.

The zone of a write is the time from the first end of it and its reads to the last beginning of any of them. If that
goes forward, the value was there all that time: no two such zones may overlap, and no other value may have come and
gone within one.
"""

import bisect
import dataclasses
import itertools

from ..history import NEVER, Op
from ..outcome import ACKNOWLEDGED


def judge_order(key):
    findings, writes, reads = attribute(key)
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
                f"two values at one time: {first.describe()}; and then again {last.describe()}; between them "
                f"{other.describe()}, and later {again.describe()}")
    starts = [zone[0] for zone in forward]
    for start, end, op in others:
        at = bisect.bisect_left(starts, start) - 1
        if at >= 0 and end < forward[at][1]:
            _, _, first, last = forward[at]
            findings.append(f"{op.describe()}; but {first.describe()} was before it, and {last.describe()} after it")
    return findings


def attribute(key):
    """Finds for each read of nothing the delete it saw, where only one can be meant. Those where several can are left
    out: fewer reads never make a history worse. Returns findings, writes and reads."""
    writes, findings, reads = key.valid_writes(), [], []
    done = sorted((write for write in writes if write.fate == ACKNOWLEDGED), key=lambda write: write.end)
    ends = [write.end for write in done]
    latest = list(itertools.accumulate((write.begin for write in done), max))
    nothing = Op("nothing", 0, -NEVER, -NEVER, ACKNOWLEDGED)
    deletes = [nothing, *(write for write in writes if write.what == "delete")]
    for read in key.reads:
        if read.number is not None:
            reads.append(read)
            continue
        before = bisect.bisect_left(ends, read.begin)
        begun = latest[before - 1] if before else -NEVER
        meant = [delete for delete in deletes if delete.begin < read.end and delete.end >= begun]
        if not meant:
            findings.append(
                f"it is gone, and nobody deleted it: {done[before - 1].describe()}; then {read.describe()}")
        elif len(meant) == 1:
            reads.append(dataclasses.replace(read, number=meant[0].number))
    return findings, [nothing, *writes], reads


def late_writes(key):
    """How many writes of unknown outcome took effect after a later one was acknowledged. They may."""
    done = sorted((write.end, write.number) for write in key.valid_writes() if write.fate == ACKNOWLEDGED)
    ends, highest = [end for end, _ in done], list(itertools.accumulate((number for _, number in done), max))
    late = set()
    for read in key.reads:
        before = bisect.bisect_left(ends, read.begin)
        if read.number and before and highest[before - 1] > read.number:
            late.add(read.number)
    return len(late)
