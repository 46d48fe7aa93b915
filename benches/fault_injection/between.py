"""A SIGKILL between a SET and its answer, many times.

A SET goes to a node, an increment with it, and the node, or the leader of the key's shard, is killed 0 to 3 ms later if
there is no answer yet. Then the changes of the shard are counted.
"""

import collections
import itertools
import select
import time

from hash_slot import crc16

from .blocking_clients import BlockingClients
from .clients import V1
from .clients.text import check_written
from .cluster import BACK_S, NODES
from .findings import Findings
from .judge import judge_key
from .outcome import ACKNOWLEDGED, REJECTED, UNKNOWN, Failed, Odd
from .shard_changes import Shard


class Between:
    def __init__(self, nodes, rng):
        self.nodes, self.rng, self.clients = nodes, rng, BlockingClients(nodes)
        self.fates, self.add_fates, self.kills = collections.Counter(), collections.Counter(), collections.Counter()
        # `came`: SETs of unknown outcome that took effect; `answered`: SETs that were answered before the kill.
        self.came, self.answered, self.findings = 0, 0, Findings()

    def run(self, rounds):
        """One kill a round. Returns the findings."""
        for n in NODES:
            if not self.nodes.wait(n, time.monotonic() + BACK_S):
                raise SystemExit(f"node{n + 1} does not serve")
        shards = self.shards()
        for _, shard in shards:
            self.count_changes(shard)
        begun = time.monotonic()
        for at in range(rounds):
            number, shard = shards[at % len(shards)]
            self.settle_late(shard)
            self.round(at, number, shard)
            for n in self.nodes.ended():
                self.findings.add(f"node{n + 1} ended by itself, with code {self.nodes.running[n].returncode}")
            found = len(self.findings.lines)
            if found > 20:
                break
            if (at + 1) % 50 == 0:
                print(f"{at + 1} kills, {time.monotonic() - begun:.0f} s, {found} findings", flush=True)
        for _, shard in shards:
            self.settle_late(shard)
            for finding in judge_key(shard.key):
                self.findings.add(f"text, key {shard.key.name}: {finding}")
        unequal = self.nodes.check(time.monotonic() + BACK_S)
        if unequal:
            self.findings.add(unequal)
        self.print_summary(time.monotonic() - begun)
        self.clients.close()
        return self.findings.lines

    def shards(self):
        """Some shards with a key each: as many as there are nodes, times four."""
        state, shards = self.clients.state(), {}
        for tag in itertools.count():
            slot = crc16(str(tag).encode()) % 16384
            number = next(s.shard for s in state.shards if any(r.first <= slot <= r.last for r in s.slots))
            if number not in shards:
                shards[number] = Shard(tag)
            if len(shards) == 12:
                return list(shards.items())

    def round(self, at, number, shard):
        """One kill. What is answered before its turn has come is judged, and does not count."""
        asked, is_under_way = at % 3, False
        while not is_under_way:
            leader = self.clients.leader(number)
            if leader is None:
                time.sleep(0.02)
                continue
            victim = asked if at % 2 == 0 else leader
            line = self.clients.line(asked)
            write = shard.key.begin("set", asked)
            add = self.clients.begin_increment(asked, shard.sum)
            try:
                line.sendall(f"SET {shard.key.name} {shard.key.value(write.number)}\n".encode())
                is_under_way = not select.select([line], [], [], self.rng.uniform(0, 0.003))[0]
            except OSError:
                pass
            if is_under_way:
                self.nodes.kill(victim)
                self.nodes.start(victim)
                who = "the node asked" if victim == asked else "the leader, another one"
                self.kills["the node asked, which led" if victim == asked == leader else who] += 1
            else:
                self.answered += 1
            self.judge(shard, write, self.clients.answer(asked), add, is_under_way)
        # Its answer came, or it was not the node asked; the connection is gone either way.
        self.clients.drop_line(victim)
        if not self.nodes.wait(victim, time.monotonic() + BACK_S):
            self.findings.add(f"node{victim + 1} does not serve {BACK_S:.0f} s after it was killed")

    def judge(self, shard, write, answer, add, counts):
        """Compares the two answers with what took effect."""
        try:
            check_written(answer)
            write.fate, write.end = ACKNOWLEDGED, time.monotonic()
        except Failed as failed:
            write.fate = failed.fate
        except Odd as odd:
            self.findings.add(f"an odd answer, {odd}: {write.describe()}")
        try:
            total, add_fate = add.result(timeout=20).value, ACKNOWLEDGED
        except self.clients.grpc.RpcError as error:
            total, add_fate = None, dict(error.trailing_metadata() or ()).get("ringfort-outcome", UNKNOWN)
        if counts:
            self.fates[write.fate] += 1
            self.add_fates[add_fate] += 1
        sets, adds, text = self.count_changes(shard)
        self.settle(shard, sets, write.fate, adds, add_fate, write.describe())
        if total is not None and total > adds:
            self.findings.add(f"{shard.sum}: {adds} was read after an increment to {total} was acknowledged")
        if write.fate == UNKNOWN and text == shard.key.value(write.number):
            self.came += 1

    def count_changes(self, shard):
        """How many changes there were of each kind, and what the key is: all at one moment."""
        begin, first = time.monotonic(), self.rng.randrange(3)
        answer = self.clients.get_many([shard.key.name.encode(), shard.sum.encode()], first)
        row, counter = answer.rows
        text = row.value.decode() if row.found else None
        shard.key.record_read(text, begin, first, V1.name, row.revision if row.found else None)
        adds = int(counter.value) if counter.found else 0
        return shard.count(answer.shard_revision, adds), adds, text

    def settle(self, shard, sets, set_fate, adds, add_fate, asked):
        for wrong in (shard.sets.settle(sets, set_fate), shard.adds.settle(adds, add_fate)):
            if wrong:
                self.findings.add(f"{shard.key.name}: {wrong}: {asked}")

    def settle_late(self, shard):
        """The same for what has come since the round was over."""
        sets, adds, _ = self.count_changes(shard)
        self.settle(shard, sets, None, adds, None, "nothing was asked")

    def print_summary(self, took_s):
        sets, adds = self.fates, self.add_fates
        kinds = ", ".join(f"{name}: {times}" for name, times in sorted(self.kills.items()))
        print(
            f"{self.kills.total()} kills between a SET and its answer, in {took_s:.0f} s ({kinds}); "
            f"{self.answered} more SETs were answered before\n"
            f"SET        {sets[ACKNOWLEDGED]} acknowledged, {sets[REJECTED]} rejected, {sets[UNKNOWN]} unknown, of "
            f"which {self.came} took effect\n"
            f"Increment  {adds[ACKNOWLEDGED]} acknowledged, {adds[REJECTED]} rejected, {adds[UNKNOWN]} unknown\n"
            f"wrong      {len(self.findings.lines)}")
