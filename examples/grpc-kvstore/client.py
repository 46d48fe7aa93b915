#!/usr/bin/env python3
"""The shell of kvstore.v1 in Python: `client.py PORT`. Beside put, get and list it knows `replicate KEY VALUE`, which a peer
of that store would call, and `put  VALUE` (two spaces) puts the empty key."""

import sys

import grpc
from google.protobuf.empty_pb2 import Empty

from kvstore.v1 import kvstore_pb2, kvstore_pb2_grpc

CALL = {"timeout": 10, "wait_for_ready": True}


def obey(channel: grpc.Channel, words: list[str]) -> None:
    store, peer = kvstore_pb2_grpc.KVStoreStub(channel), kvstore_pb2_grpc.ReplicatorStub(channel)
    match words:
        case ("put" | "replicate") as verb, key, value:
            call = store.Put if verb == "put" else peer.Replicate
            ack = call(kvstore_pb2.KeyValue(key=key, value=value), **CALL)
            print(ack.message if ack.ok else f"error: not stored: {ack.message}")
        case "put", *_:
            print("Usage: put <key> <value>")
        case "get", key:
            print(key, "=", store.Get(kvstore_pb2.Key(key=key), **CALL).value)
        case "get", *_:
            print("Usage: get <key>")
        case ["list"]:
            for row in store.List(Empty(), **CALL):
                print(row.key, "=", row.value)
        case _:
            print("Commands: put/get/list/exit")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with grpc.insecure_channel(f"localhost:{sys.argv[1]}") as channel:
        while True:
            print("> ", end="", flush=True)
            words = sys.stdin.readline()
            if not words:
                print()
                return
            words = words.rstrip("\n").split(" ", 2)
            if words[0] in ("exit", "quit"):
                return
            try:
                obey(channel, words)
            except grpc.RpcError as error:
                print(f"error: {error.code().name}: {error.details()}")


if __name__ == "__main__":
    main()
