"""Numbers that are given out once, and names that have one owner.

Numbers: an increment by 20 is a block of 20 of them, for its client to use as it likes. A block whose answer was lost is
lost with it; it is never given out again. Names: a put of a key that must not be there.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from nodes import NODES, connect
from ringfort.v1 import kv_pb2, kv_pb2_grpc

CLIENTS = 4
BLOCKS = 25
BLOCK = 20


def is_unknown(error):
    """Whether a failed call may have had its effect."""
    return dict(error.trailing_metadata() or ()).get("ringfort-outcome") != "rejected"


def block(kv):
    """The next numbers that are nobody else's."""
    while True:
        try:
            last = kv.Increment(kv_pb2.IncrementRequest(key=b"invoice/last", by=BLOCK), timeout=3).value
            return range(last - BLOCK + 1, last + 1)
        except grpc.RpcError as error:
            # If it is unknown, the next block will do: a gap does no harm.
            if not is_unknown(error):
                raise


def claim(kv, name, owner):
    """Whether the name is this owner's."""
    absent = kv_pb2.Condition(present=False)
    try:
        answer = kv.Put(kv_pb2.PutRequest(key=name, value=owner, condition=absent), timeout=3)
        return not answer.HasField("not_met")
    except grpc.RpcError as error:
        if not is_unknown(error):
            raise
        # It may have been done: the name says whose it is.
        return kv.Get(kv_pb2.GetRequest(key=name), timeout=3).value == owner


def main():
    addresses = sys.argv[1] if len(sys.argv) > 1 else NODES
    with connect(addresses) as channel, ThreadPoolExecutor(10) as clients:
        kv = kv_pb2_grpc.KVStub(channel)

        drawing = clients.map(lambda _: [number for _ in range(BLOCKS) for number in block(kv)], range(CLIENTS))
        ids = [number for drawn in drawing for number in drawn]
        # The counter is not reset: whoever runs this again gets other numbers.
        print(f"{len(ids)} numbers were given out, each once: {min(ids)} to {max(ids)}")
        assert len(ids) == len(set(ids)) == CLIENTS * BLOCKS * BLOCK

        name = b"account/ada"
        kv.Delete(kv_pb2.DeleteRequest(key=name), timeout=3)
        owners = sum(clients.map(lambda number: claim(kv, name, b"owner %d" % number), range(10)))
        print(f"of ten that wanted the name {name.decode()}, {owners} has it")
        assert owners == 1


if __name__ == "__main__":
    main()
