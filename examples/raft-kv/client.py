#!/usr/bin/env python3
"""A client of the package `proto` in Python.

client.py ADDRESS                     puts hello → world, and gets it
client.py ADDRESS put KEY VALUE
client.py ADDRESS get KEY
client.py ADDRESS join ID RAFT GRPC
"""

import sys

import grpc

from proto import kv_pb2, kv_pb2_grpc

CALL = {"timeout": 10, "wait_for_ready": True}


def put(kv: kv_pb2_grpc.KVStub, key: str, value: str) -> None:
    kv.Put(kv_pb2.PutRequest(key=key, value=value), **CALL)
    print("Put", key, "=", value)


def get(kv: kv_pb2_grpc.KVStub, key: str) -> None:
    print("Get", key, "=", kv.Get(kv_pb2.GetRequest(key=key), **CALL).value)


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    with grpc.insecure_channel(sys.argv[1]) as channel:
        kv = kv_pb2_grpc.KVStub(channel)
        match sys.argv[2:]:
            case []:
                put(kv, "hello", "world")
                get(kv, "hello")
            case "put", key, value:
                put(kv, key, value)
            case "get", key:
                get(kv, key)
            case "join", node, raft, address:
                kv.Join(kv_pb2.JoinRequest(node_id=node, raft_address=raft, grpc_address=address), **CALL)
                print("Joined")
            case _:
                sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
