"""How often a write took effect, and not only whether. A key and a counter have a shard to themselves, and the shard
counts its changes: what is more than the counter's value are the changes of the key."""

from .history import Key
from .outcome import ACKNOWLEDGED, UNKNOWN


class Shard:
    """A key of the text port and a counter that share a shard with nothing else."""

    def __init__(self, tag):
        self.key, self.sum = Key(f"set{{{tag}}}", "text"), f"sum{{{tag}}}"
        # The shard's revision before the first change of either.
        self.first = None
        self.sets, self.adds = Changes("sets"), Changes("adds")

    def count(self, revision, adds):
        """How many changes of the key there were, at a revision of the shard and with this value of the counter."""
        if self.first is None:
            self.first, self.adds.seen = revision - adds, adds
        return revision - self.first - adds


class Changes:
    """Changes of one kind: how many were seen so far, and how many writes may still come."""

    def __init__(self, kind):
        self.kind, self.seen, self.open = kind, 0, 0

    def settle(self, now, fate):
        """Compares the new count with what was answered; None if nothing was asked since. Returns what is wrong."""
        change, done = now - self.seen, int(fate == ACKNOWLEDGED)
        may_come = self.open + int(fate == UNKNOWN)
        self.seen, self.open = now, max(0, may_come - (change - done))
        if done <= change <= done + may_come:
            return None
        return f"{change} changes ({self.kind}) where {done} was acknowledged and {may_come} may have come"
