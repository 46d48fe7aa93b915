"""What may become of a call: it is acknowledged, rejected (nothing happened) or unknown (it may have taken effect, or
may do so later)."""

ACKNOWLEDGED, REJECTED, UNKNOWN = "acknowledged", "rejected", "unknown"
# How long a call may take.
CALL_S = 3.0


class Failed(Exception):
    """A call that failed, and what became of it."""

    def __init__(self, fate, why):
        super().__init__(why)
        self.fate, self.why = fate, why


class Odd(Exception):
    """An answer that no door should give."""
