"""A node joins and is removed again, and each time the node that leads everything stops, is cut off one way, or has a slow disk."""

import asyncio
import itertools
import subprocess
import time

from .cluster import JOINER

# How long each lasts.
FAULTS = {"stop": 8.0, "mute": 8.0, "deaf": 8.0, "slow": 20.0}
SLOW_MS = 200
# What one change may take from the end of its fault on.
DONE_S = 60.0
# At most, of a join and a removal.
ROUND_S = 2 * (max(FAULTS.values()) + 15)


class Reshape:
    """`timeline` gets the time and the name of each fault, and of its end."""

    def __init__(self, nodes, names, rng, timeline, findings):
        self.nodes, self.names, self.rng, self.timeline, self.findings = nodes, names, rng, timeline, findings

    async def run(self, begun, until):
        """Goes through the faults again and again. No round begins that would not be over in time."""
        self.begun = begun
        await self.ask("cluster", "set", "leader-preference=highest-id")
        for number, fault in enumerate(itertools.cycle(self.names), 4):
            if time.monotonic() + ROUND_S > until:
                return
            name = f"node{number}"
            if not await self.round(name, fault):
                return

    async def round(self, name, fault):
        """Whether it came to its end."""
        nodes = self.nodes
        if not await self.wait("node3 leads everything", lambda state: leads_all(state, "node3")):
            return False
        self.strike(fault, 2, f"{name} joins")
        nodes.join(name)
        if not await self.end(fault, f"{name} has its share", lambda state: has_share(state, name)):
            return False
        if not await self.wait(f"{name} leads everything", lambda state: leads_all(state, name)):
            return False
        removing = asyncio.create_task(self.ask("cluster", "remove", name, "--timeout", f"{DONE_S:.0f}s", timeout_s=2 * DONE_S))
        await asyncio.sleep(self.rng.uniform(0, 0.5))
        self.strike(fault, JOINER, f"{name} is removed")
        if not await self.end(fault, f"{name} is no member", lambda state: is_gone(state, name)):
            return False
        if await removing is None:
            self.findings.add(f"the command that removes {name} has failed")
        if not await asyncio.to_thread(self.has_ended):
            self.findings.add(f"{name} was removed and does not end: {nodes.log(JOINER)}")
            return False
        nodes.running[JOINER] = None
        return True

    def strike(self, fault, n, what):
        nodes = self.nodes
        self.record(f"{fault} {nodes.name(n)}, {what}")
        match fault:
            case "stop":
                nodes.stop(n)
            case "mute":
                nodes.mute(n)
            case "deaf":
                nodes.deafen(n)
            case "slow":
                nodes.slow(n, SLOW_MS)

    async def end(self, fault, what, holds):
        await asyncio.sleep(FAULTS[fault])
        early = await asyncio.to_thread(self.holds, holds)
        self.nodes.mend()
        self.record(f"over; {what}" if early else "over")
        return early or await self.wait(what, holds)

    def holds(self, holds):
        state = self.nodes.status()
        return state is not None and holds(state)

    async def wait(self, what, holds):
        """Whether it holds in time."""
        since = time.monotonic()
        while not await asyncio.to_thread(self.holds, holds):
            if time.monotonic() > since + DONE_S:
                self.findings.add(f"not within {DONE_S:.0f} s: {what}")
                return False
            await asyncio.sleep(0.1)
        self.record(f"{what}, after {time.monotonic() - since:.1f} s")
        return True

    async def ask(self, *words, timeout_s=10):
        return await asyncio.to_thread(lambda: self.nodes.ask(*words, timeout_s=timeout_s))

    def has_ended(self):
        try:
            self.nodes.running[JOINER].wait(DONE_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def record(self, what):
        self.timeline.append((time.monotonic(), what))
        print(f"{time.monotonic() - self.begun:6.1f} s  {what}", flush=True)


def node_of(state, name):
    return next((node for node in state["nodes"] if node["name"] == name), None)


def is_settled(state):
    return not any(shard["moving"] for shard in state["shards"])


def leads_all(state, name):
    node = node_of(state, name)
    if node is None:
        return False
    own = [shard for shard in state["shards"] if any(replica["node"] == node["id"] for replica in shard["replicas"])]
    return bool(own) and all(shard["leader"] == node["id"] for shard in own)


def has_share(state, name):
    """A quarter of all replicas, but for the meta group's."""
    node = node_of(state, name)
    if node is None or not is_settled(state):
        return False
    shards = state["shards"]
    own = sum(replica["node"] == node["id"] for shard in shards for replica in shard["replicas"])
    return own >= 3 * len(shards) // 4 - 3


def is_gone(state, name):
    return node_of(state, name) is None and is_settled(state)
