#!/usr/bin/env python3
"""A client of the package `kv` in Python.

client.py [-addr ADDRESS] [-raw] get KEY
client.py [-addr ADDRESS] [-version N] set KEY VALUE
client.py [-addr ADDRESS] [-version N] delete KEY
client.py [-addr ADDRESS] [-version N] replicate KEY [VALUE]    as a peer of that store does; without a value, a delete
client.py [-addr ADDRESS] state
client.py [-addr ADDRESS] heartbeat | vote                      for a term that is far ahead
"""

import argparse
import sys

import grpc

from kv import kv_pb2 as kv
from kv import kv_pb2_grpc

CALL = {"timeout": 10, "wait_for_ready": True}
FAR = 1 << 40


def told(ok: bool) -> None:
    print("ok" if ok else "ignored")


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("-addr", default="localhost:50051")
    parser.add_argument("-raw", action="store_true")
    parser.add_argument("-version", type=int, default=0)
    parser.add_argument("words", nargs="+")
    asked = parser.parse_args()
    version = asked.version
    with grpc.insecure_channel(asked.addr) as channel:
        store, cluster = kv_pb2_grpc.KeyValueStub(channel), kv_pb2_grpc.ClusterStub(channel)
        match asked.words:
            case "get", key:
                answer = store.Get(kv.GetRequest(key=key), **CALL)
                if not answer.found:
                    print("(not found)")
                elif asked.raw:
                    sys.stdout.buffer.write(answer.value)
                else:
                    print(answer.value.decode())
            case "set", key, value:
                told(store.Set(kv.SetRequest(key=key, value=value.encode(), version=version), **CALL).ok)
            case "delete", key:
                told(store.Delete(kv.DeleteRequest(key=key, version=version), **CALL).ok)
            case "replicate", key:
                told(store.Replicate(kv.ReplicateRequest(key=key, version=version, is_delete=True), **CALL).ok)
            case "replicate", key, value:
                request = kv.ReplicateRequest(key=key, value=value.encode(), version=version)
                told(store.Replicate(request, **CALL).ok)
            case ["state"]:
                state = cluster.GetClusterState(kv.GetClusterStateRequest(), **CALL)
                for name, address in zip(state.node_ids, state.addresses, strict=True):
                    print(f"{name}={address}")
                print(f"leader {state.leader_id}, term {state.term}")
            case ["heartbeat"]:
                request = kv.HeartbeatRequest(node_id="stranger", address="127.0.0.1:1", term=FAR, is_leader=True)
                answer = cluster.Heartbeat(request, **CALL)
                print(f"term {answer.term}, accepted {str(answer.accepted).lower()}")
            case ["vote"]:
                request = kv.RequestVoteRequest(node_id="stranger", term=FAR, last_log_index=FAR)
                answer = cluster.RequestVote(request, **CALL)
                print(f"term {answer.term}, granted {str(answer.vote_granted).lower()}")
            case _:
                sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
