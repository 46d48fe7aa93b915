"""Whether a history is explained by some order of all writes and reads of a key in which everything takes effect once,
between its beginning and its end, and every read sees the write before it.

A write whose outcome is unknown may take effect at any time after it began, or not at all; a rejected one never does.
`exhaustive.py` holds the judge against all orders of small histories.
"""

from ..outcome import REJECTED
from .register import judge_order
from .revisions import judge_revisions
from .versions import judge_versions


def judge_key(key):
    """What is wrong, a line each."""
    findings = [*key.findings, *judge_reads(key)]
    if not findings:
        findings = judge_versions(key) if key.is_versioned else judge_order(key) + judge_revisions(key)
    return findings


def judge_reads(key):
    """Reads of something that can't have been there, whatever the order."""
    findings = []
    for read in key.reads:
        write = key.writes.get(read.number)
        if write is None:
            continue
        if write.fate == REJECTED:
            findings.append(f"a rejected write was read: {write.describe()}; {read.describe()}")
        if write.what == "old":
            findings.append(f"a write of an older version was read: {write.describe()}; {read.describe()}")
        if read.end < write.begin:
            findings.append(f"it was read before it was written: {write.describe()}; {read.describe()}")
    return findings
