"""Where it is known how the shard has numbered its changes, nobody may see an older one than was seen before.

So a write that came late, which is allowed, is told from a read of something old, which is not.
"""

from ..outcome import ACKNOWLEDGED
from .floor import Floor


def judge_revisions(key):
    findings, floor = [], Floor(-1, None)
    done = [write for write in key.writes.values() if write.fate == ACKNOWLEDGED]
    for op in sorted([*done, *key.reads], key=lambda op: op.end):
        revision = key.revisions.get(op.number)
        if revision is None:
            continue
        least, before = floor.before(op.begin)
        if revision < least:
            findings.append(
                f"it went back: {before.describe()}, revision {least} of the shard; then {op.describe()}, revision "
                f"{revision}")
        floor.add(revision, op)
    return findings
