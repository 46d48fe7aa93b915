"""After the last fault every node is asked for every key: through ringfort.v1, the door that wrote it, and another one.
Then all replicas have to be equal."""

import asyncio
import time

from .clients import V1, KvStore
from .cluster import BACK_S, NODES
from .outcome import Failed


class FinalReads:
    """What is read goes into the history of the workload, and is judged with it."""

    def __init__(self, nodes, workload):
        self.nodes, self.workload, self.findings = nodes, workload, workload.findings

    async def run(self):
        self.nodes.mend()
        for n in NODES:
            if not await asyncio.to_thread(self.nodes.wait, n, time.monotonic() + BACK_S):
                self.findings.add(f"node{n + 1} does not serve {BACK_S:.0f} s after the last fault")
                return
        clients = {name: door.client() for name, door in self.workload.doors.items()}
        for node in NODES:
            await self.ask_for_all(clients, node)
        unequal = await asyncio.to_thread(self.nodes.check, time.monotonic() + BACK_S)
        if unequal:
            self.findings.add(unequal)

    async def ask_for_all(self, clients, node):
        workload = self.workload
        for key in workload.history.keys:
            others = [name for name in clients if name not in (key.door, "family")]
            for name in {key.door, *filter(V1.name.__eq__, clients), workload.rng.choice(others or [key.door])}:
                what = f"{key.name} through {name}, node{node + 1}"
                await self.retry(what, self.read_key, clients[name], name, key, node)
        for counter in workload.history.counters:
            await self.retry(f"{counter.name} through node{node + 1}", workload.read_counter, counter, node)
        if KvStore.name in clients:
            what = f"all keys through kvstore.v1, node{node + 1}"
            await self.retry(what, self.read_list, clients[KvStore.name], node)

    async def read_key(self, client, name, key, node):
        if not await client.is_ready(node):
            return False
        await self.workload.read(client, name, key, node)
        return True

    async def read_list(self, client, node):
        if not await client.is_ready(node):
            return False
        begin = time.monotonic()
        rows = await client.list(node)
        for key in self.workload.history.keys:
            key.record_read(rows.get(key.name), begin, node, "kvstore.v1's List")
        return True

    async def retry(self, what, read, *arguments):
        """Reads until there is an answer."""
        until, why = time.monotonic() + BACK_S, "no connection"
        while time.monotonic() < until:
            try:
                if await read(*arguments):
                    return
            except Failed as failed:
                why = failed.why
            await asyncio.sleep(0.05)
        self.findings.add(f"can't be read {BACK_S:.0f} s after the last fault: {what}: {why}")
