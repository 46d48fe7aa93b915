"""A lock with a fencing token: one write decides who has it, and who has lost it can do no harm.

The lock is a key that is there as long as somebody has it. The revision of the write that took it is the token, and
whatever the lock protects is written under the condition that this is still the lock's revision.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from nodes import NODES, connect
from ringfort.v1 import kv_pb2, kv_pb2_grpc

# The same part in braces: of one shard, so that a write to one can depend on the other.
LOCK = b"{gate}lock"
GUARDED = b"{gate}book"


def outcome(error):
    """Whether a failed call surely did nothing ("rejected") or may have had its effect ("unknown")."""
    return dict(error.trailing_metadata() or ()).get("ringfort-outcome", "unknown")


def take(kv, name):
    """Takes the lock if it is free; the token, or None. The name is nobody else's."""
    absent = kv_pb2.Condition(present=False)
    try:
        answer = kv.Put(kv_pb2.PutRequest(key=LOCK, value=name, condition=absent), timeout=3)
    except grpc.RpcError as error:
        if outcome(error) != "unknown":
            raise
        # It may have been done: the lock says whose it is.
        row = kv.Get(kv_pb2.GetRequest(key=LOCK), timeout=3)
        return row.revision if row.found and row.value == name else None
    return None if answer.HasField("not_met") else answer.receipt.revision


def write(kv, token, text):
    """Writes what the lock protects, if the lock is still the one with this token."""
    parts = [
        kv_pb2.WritePart(key=LOCK, condition=kv_pb2.Condition(revision=token)),
        kv_pb2.WritePart(key=GUARDED, put=text),
    ]
    return not kv.Write(kv_pb2.WriteRequest(parts=parts), timeout=3).HasField("not_met")


def release(kv, token):
    """Gives the lock up, if it is still the one with this token."""
    request = kv_pb2.DeleteRequest(key=LOCK, condition=kv_pb2.Condition(revision=token))
    return not kv.Delete(request, timeout=3).HasField("not_met")


def main():
    addresses = sys.argv[1] if len(sys.argv) > 1 else NODES
    with connect(addresses) as channel, ThreadPoolExecutor(10) as guests:
        kv = kv_pb2_grpc.KVStub(channel)
        kv.Delete(kv_pb2.DeleteRequest(key=LOCK), timeout=3)

        # Ten want it at the same time.
        taken = list(guests.map(lambda number: take(kv, b"guest-%d" % number), range(10)))
        tokens = [token for token in taken if token is not None]
        assert len(tokens) == 1, f"{len(tokens)} of ten have the lock"
        old = tokens[0]
        print(f"one of ten has the lock, with token {old}")
        assert write(kv, old, b"written by the first")

        # The holder says nothing for too long: by one more write, somebody takes the lock over as it was found.
        found = kv_pb2.Condition(revision=old)
        new = kv.Put(kv_pb2.PutRequest(key=LOCK, value=b"guest-10", condition=found), timeout=3).receipt.revision
        assert new > old, "tokens rise"
        print(f"it was taken over, with token {new}")
        assert write(kv, new, b"written by the second")

        # Then the first comes back, and goes on as if nothing had happened.
        assert not write(kv, old, b"written too late"), "a late write is refused"
        assert not release(kv, old), "nobody gives up a lock that is another's"
        assert kv.Get(kv_pb2.GetRequest(key=GUARDED), timeout=3).value == b"written by the second"
        print("the first holder's late write was refused")

        assert release(kv, new) and not kv.Get(kv_pb2.GetRequest(key=LOCK), timeout=3).found


if __name__ == "__main__":
    main()
