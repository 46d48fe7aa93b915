"""A work queue: each item is taken by one worker and done once, also if a worker falls over.

An item is in one of three places: `todo/ID`, `taken/WORKER/ID`, `done/ID`. It goes from one to the next by an atomic write
under the condition that it is still where it was. What a worker has taken is not in its memory but in the store, so a
worker that starts again goes on with it, and somebody else can put back what a lost worker has.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from nodes import NODES, connect
from ringfort.v1 import kv_pb2, kv_pb2_grpc

# The same part in braces: of one shard, so that an item can move in one write.
TODO, TAKEN, DONE = b"{tasks}todo/", b"{tasks}taken/%s/", b"{tasks}done/"
ITEMS = 60
WORKERS = 4


def move(kv, source, target, value):
    """Whether the item has moved. If that is not known, the next look at the queue will show it."""
    present = kv_pb2.Condition(present=True)
    parts = [
        kv_pb2.WritePart(key=source, condition=present, delete=True),
        kv_pb2.WritePart(key=target, put=value),
    ]
    try:
        return not kv.Write(kv_pb2.WriteRequest(parts=parts), timeout=3).HasField("not_met")
    except grpc.RpcError as error:
        if dict(error.trailing_metadata() or ()).get("ringfort-outcome") == "rejected":
            raise
        return False


def rows(kv, prefix, limit=0):
    """What is there, in order: the part of the key after the prefix, and the value."""
    pages = list(kv.List(kv_pb2.ListRequest(prefix=prefix, limit=limit), timeout=10))
    assert pages[-1].last, "the stream was cut on its way"
    return [(row.key[len(prefix):], row.value) for page in pages for row in page.rows]


def work(kv, me):
    """Works until nothing is left; what came of each item."""
    mine, results = TAKEN % me, []
    while True:
        for name, item in rows(kv, mine):
            # The work itself. A worker that falls over here does it again.
            result = int(item)
            if move(kv, mine + name, DONE + name, me):
                results.append(result)
        left = rows(kv, TODO, limit=5)
        if not left:
            return results
        for name, item in left:
            # Of several that try, one has its way; whose it is is seen by where it is, the next time round.
            move(kv, TODO + name, mine + name, item)


def main():
    addresses = sys.argv[1] if len(sys.argv) > 1 else NODES
    with connect(addresses) as channel, ThreadPoolExecutor(WORKERS) as workers:
        kv = kv_pb2_grpc.KVStub(channel)
        for key, _ in rows(kv, b"{tasks}"):
            kv.Delete(kv_pb2.DeleteRequest(key=b"{tasks}" + key), timeout=3)
        for number in range(ITEMS):
            kv.Put(kv_pb2.PutRequest(key=TODO + b"%03d" % number, value=b"%d" % number), timeout=3)

        # One takes an item and is not heard of again; the item is put back.
        lost = TAKEN % b"lost" + b"000"
        assert move(kv, TODO + b"000", lost, b"0")
        assert move(kv, lost, TODO + b"000", b"0")

        done = list(workers.map(lambda number: work(kv, b"worker-%d" % number), range(WORKERS)))
        print("items done by each worker:", [len(results) for results in done])
        assert sorted(result for results in done for result in results) == list(range(ITEMS))
        assert len(rows(kv, DONE)) == ITEMS, "all are where what is done is"
        assert len(rows(kv, b"{tasks}")) == ITEMS, "and nowhere else"

        # The lost one comes back and thinks that it has the item still.
        assert not move(kv, lost, DONE + b"000", b"lost"), "what was put back is not done twice"
        print(f"all {ITEMS} items are done, each once")


if __name__ == "__main__":
    main()
