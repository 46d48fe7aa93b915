"""A client in Python, over stubs made from Ringfort's protos: `./run.sh [ADDRESSES]` makes them and runs it."""

import sys

import grpc

from nodes import NODES, connect
from ringfort.v1 import cluster_pb2, cluster_pb2_grpc, kv_pb2, kv_pb2_grpc


def outcome(error: grpc.RpcError) -> str:
    """Whether a failed call surely did nothing ("rejected") or may have had its effect ("unknown")."""
    metadata = dict(error.trailing_metadata() or ())
    return metadata.get("ringfort-outcome", "unknown")


def main() -> None:
    addresses = sys.argv[1] if len(sys.argv) > 1 else NODES
    with connect(addresses) as channel:
        kv = kv_pb2_grpc.KVStub(channel)

        receipt = kv.Put(kv_pb2.PutRequest(key=b"capital/is", value=b"Reykjavik"), timeout=3).receipt
        print(f"stored at revision {receipt.revision} of shard {receipt.shard}, on {receipt.copies} disks")

        answer = kv.Get(kv_pb2.GetRequest(key=b"capital/is"), timeout=3)
        print("capital/is =", answer.value.decode() if answer.found else None)
        assert answer.value == b"Reykjavik"

        for number in range(10):
            kv.Put(kv_pb2.PutRequest(key=b"fjord/%02d" % number, value=b"no. %d" % number), timeout=3)
        frames = list(kv.List(kv_pb2.ListRequest(prefix=b"fjord/"), timeout=10))
        assert frames[-1].last, "the stream was cut on its way"
        listed = [row.key for frame in frames for row in frame.rows]
        print("listed in order:", b" ".join(listed).decode())
        assert listed == sorted(listed) and len(listed) == 10

        # What is wrong is said, and whether anything may have happened.
        try:
            kv.Put(kv_pb2.PutRequest(key=b"", value=b"x"), timeout=3)
            raise AssertionError("an empty key was taken")
        except grpc.RpcError as error:
            print(f"{error.code().name} ({outcome(error)}): {error.details()}")
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and outcome(error) == "rejected"

        kv.Delete(kv_pb2.DeleteRequest(key=b"capital/is"), timeout=3)
        assert not kv.Get(kv_pb2.GetRequest(key=b"capital/is"), timeout=3).found

        state = cluster_pb2_grpc.ClusterStub(channel).GetClusterState(
            cluster_pb2.GetClusterStateRequest(), timeout=3
        )
        print("nodes:", ", ".join(f"{node.name} at {node.address}" for node in state.nodes))


if __name__ == "__main__":
    main()
