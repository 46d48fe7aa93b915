"""What was found to be wrong."""


class Findings:
    """A line each, printed as soon as it is found."""

    def __init__(self):
        self.lines = []

    def add(self, line):
        print(f"FOUND: {line}", flush=True)
        self.lines.append(line)
