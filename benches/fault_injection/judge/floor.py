"""The least that an operation has to see of a number which only grows."""

import bisect

from ..history import NEVER


class Floor:
    """The highest number among the operations that ended before a given time. They are added in the order of their
    ends."""

    def __init__(self, number, op):
        """Both are what is seen before any operation has ended."""
        self.ends, self.highest = [-NEVER], [(number, op)]

    def before(self, begin):
        """The number, and the operation that saw it."""
        return self.highest[bisect.bisect_left(self.ends, begin) - 1]

    def add(self, number, op):
        self.ends.append(op.end)
        self.highest.append(max(self.highest[-1], (number, op), key=lambda pair: pair[0]))
