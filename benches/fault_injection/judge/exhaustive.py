"""The judge, judged: its verdict on many small histories against a search through all orders of each."""

import collections

from ..history import NEVER, Key, Op
from ..outcome import ACKNOWLEDGED, UNKNOWN
from . import judge_key


def check_judge(rng):
    """Prints how often the two agree. Returns the exit code."""
    verdicts = collections.Counter()
    for case in range(20_000):
        is_versioned, deletes = case % 2 == 0, case % 4 >= 2
        key = small_history(rng, is_versioned, deletes)
        found, right = bool(judge_key(key)), not has_order(key)
        verdicts[found, right] += 1
        # Of reads that may come from several deletes the judge leaves some out.
        if found != right and (found or is_versioned or not deletes):
            ops = [op.describe() for op in [*key.writes.values(), *key.reads]]
            print(f"the judge {'finds' if found else 'misses'} something:", *ops, sep="\n  ")
            return 1
    print(
        f"the judge is right: {verdicts[False, False]:,} histories have an order, {verdicts[True, True]:,} have none, "
        f"and {verdicts[False, True]:,} with deletes that have none are let pass")
    return 0


def small_history(rng, is_versioned, deletes):
    """One to four writes, one after the other, and as many reads at any time."""
    key, clock = Key("k", "none", is_versioned), 0.0
    for _ in range(rng.randint(1, 4)):
        write = key.begin("delete" if deletes and rng.random() < 0.4 else "set", 0)
        write.begin = clock = clock + rng.uniform(0.1, 1)
        clock += rng.uniform(0.1, 2)
        write.fate = rng.choice([ACKNOWLEDGED, ACKNOWLEDGED, UNKNOWN])
        write.end = clock if write.fate == ACKNOWLEDGED else NEVER
    for _ in range(rng.randint(1, 4)):
        begin = rng.uniform(0, clock)
        number = rng.choice([None, *(n for n, write in key.writes.items() if write.what == "set")])
        key.reads.append(Op("read", number, begin, begin + rng.uniform(0.01, clock)))
    return key


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
