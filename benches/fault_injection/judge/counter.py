"""A counter that several clients add 1 to. Each addition takes effect once at most, and the sum never goes back."""

import bisect
import collections

from ..history import NEVER, Op
from ..outcome import ACKNOWLEDGED, REJECTED
from .floor import Floor


def judge_counter(counter):
    """What is wrong, a line each."""
    findings = []
    done = sorted((add for add in counter.adds if add.fate == ACKNOWLEDGED), key=lambda add: add.end)
    ends = [add.end for add in done]
    begun = sorted(add.begin for add in counter.adds if add.fate != REJECTED)
    if len({add.number for add in done}) != len(done):
        twice = [total for total, times in collections.Counter(add.number for add in done).items() if times > 1]
        findings.append(f"several additions of 1 came to the same sum: {twice[:10]}")
    floor = Floor(0, Op("nothing", 0, -NEVER))
    for op in sorted([*done, *counter.reads], key=lambda op: op.end):
        least, previous = floor.before(op.begin)
        before, at_most = bisect.bisect_left(ends, op.begin), bisect.bisect_left(begun, op.end)
        own = int(op.what != "read")
        if op.number < least + own:
            findings.append(f"it went back: {previous.describe()}; then {op.describe()}")
        if not before + own <= op.number <= at_most:
            findings.append(
                f"{before} acknowledged before it, {at_most} begun in time and not rejected: {op.describe()}")
        floor.add(op.number, op)
    return findings
