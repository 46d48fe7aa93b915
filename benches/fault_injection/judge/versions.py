"""For a key whose writes have their numbers for versions: whoever reads sees at least the highest version that was
acknowledged, or read, before."""

import dataclasses

from ..history import NEVER, Op
from ..outcome import ACKNOWLEDGED
from .floor import Floor


def judge_versions(key):
    writes = key.valid_writes()
    deletes = sorted((write.number, write.begin) for write in writes if write.what == "delete")
    done = [write for write in writes if write.fate == ACKNOWLEDGED]
    findings, floor = [], Floor(0, Op("nothing", 0, -NEVER, -NEVER))
    for op in sorted([*done, *key.reads], key=lambda op: op.end):
        number = op.number
        if op.what == "read":
            least, before = floor.before(op.begin)
            if number is None:
                # What is not there may be any delete that is high enough and had begun.
                begun = (number for number, begin in deletes if number >= least and begin < op.end)
                number = 0 if least == 0 else next(begun, None)
            if number is None or number < least:
                findings.append(f"it went back: {before.describe()}; then {op.describe()}")
                continue
        floor.add(number, dataclasses.replace(op, number=number))
    return findings
