"""How the calls of one door went: one line of the table at the end."""

import collections
import time

from .outcome import ACKNOWLEDGED


class Figures:
    def __init__(self):
        self.fates, self.why, self.reads = collections.Counter(), collections.Counter(), 0
        # `pause` is the longest time without an acknowledged write, in seconds.
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
