"""A counter that several clients add to at the same time: nothing is lost, and nothing is counted twice."""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from nodes import NODES, connect
from ringfort.v1 import kv_pb2, kv_pb2_grpc

VISITS = b"visitors"
CLIENTS = 4
EACH = 100


def count(addresses):
    """How many increments were acknowledged, and of how many it is not known whether they were done."""
    added = unknown = 0
    # A connection of its own.
    with connect(addresses, ("grpc.use_local_subchannel_pool", 1)) as channel:
        kv = kv_pb2_grpc.KVStub(channel)
        for _ in range(EACH):
            try:
                kv.Increment(kv_pb2.IncrementRequest(key=VISITS, by=1), timeout=3)
                added += 1
            except grpc.RpcError as error:
                if dict(error.trailing_metadata() or ()).get("ringfort-outcome") == "rejected":
                    raise
                # Not tried again: a counter that must not miss any would rather count too much.
                unknown += 1
    return added, unknown


def main():
    addresses = sys.argv[1] if len(sys.argv) > 1 else NODES
    with connect(addresses) as channel, ThreadPoolExecutor(CLIENTS) as clients:
        kv = kv_pb2_grpc.KVStub(channel)
        # A key that is not there counts as 0.
        kv.Delete(kv_pb2.DeleteRequest(key=VISITS), timeout=3)
        counted = list(clients.map(count, [addresses] * CLIENTS))
        added, unknown = (sum(column) for column in zip(*counted))

        # The value is a decimal number, for everybody to read.
        total = int(kv.Get(kv_pb2.GetRequest(key=VISITS), timeout=3).value)
        print(f"{CLIENTS} clients counted to {total}: {added} increments acknowledged, {unknown} unknown")
        assert added + unknown == CLIENTS * EACH
        assert added <= total <= added + unknown
        # What is added may be negative.
        assert kv.Increment(kv_pb2.IncrementRequest(key=VISITS, by=-total), timeout=3).value == 0


if __name__ == "__main__":
    main()
