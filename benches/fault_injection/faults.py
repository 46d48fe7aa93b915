"""Faults, one after the other, with some seconds between them in which the cluster heals."""

import asyncio
import itertools
import time

from .cluster import NODES

# How long each lasts.
FAULTS = {"kill": 2.0, "stop": 4.0, "cut": 4.0, "power": 0.5}
HEALED_S = 3.0


class Faults:
    """`timeline` gets the time and the name of each fault, and of its end."""

    def __init__(self, nodes, names, rng, timeline):
        self.nodes, self.names, self.rng, self.timeline = nodes, names, rng, timeline

    async def run(self, begun, until):
        """Goes through the faults again and again. None begins that would not be over in time."""
        nodes, turn = self.nodes, self.rng.randrange(3)
        await asyncio.sleep(HEALED_S)
        for name in itertools.cycle(self.names):
            if time.monotonic() + FAULTS[name] + HEALED_S > until:
                return
            turn = (turn + self.rng.randint(1, 2)) % 3
            self.record(name if name == "power" else f"{name} node{turn + 1}", begun)
            match name:
                case "kill":
                    nodes.kill(turn)
                case "power":
                    nodes.kill(*NODES)
                case "stop":
                    nodes.stop(turn)
                case "cut":
                    nodes.cut(turn)
            await asyncio.sleep(FAULTS[name])
            nodes.mend()
            self.record("over", begun)
            await asyncio.sleep(HEALED_S)

    def record(self, what, begun):
        self.timeline.append((time.monotonic(), what))
        print(f"{time.monotonic() - begun:6.1f} s  {what}", flush=True)
