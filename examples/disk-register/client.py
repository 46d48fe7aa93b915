#!/usr/bin/env python3
"""Clients of the disk register, in Python: the text protocol, and Store, Retrieve, GetFamily and Join over gRPC.

client.py ADDRESS text                  lines from stdin, an answer to each
client.py ADDRESS store ID TEXT         through family.FamilyService
client.py ADDRESS retrieve ID
client.py ADDRESS storage-store ID TEXT through family.StorageService
client.py ADDRESS storage-retrieve ID
client.py ADDRESS family                who is there
client.py ADDRESS join HOST PORT        the node that waits there becomes a member; who is there then
"""

import socket
import sys

import grpc

from family import family_pb2, family_pb2_grpc

TIMEOUT_S = 15


def text(address: str) -> None:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
        answers = connection.makefile("rb")
        for line in sys.stdin.buffer:
            connection.sendall(line.rstrip(b"\r\n") + b"\n")
            answer = answers.readline()
            if not answer:
                sys.exit("the connection was closed")
            sys.stdout.buffer.write(answer)
            sys.stdout.buffer.flush()


def show(view: family_pb2.FamilyView) -> None:
    for member in view.members:
        print(f"{member.host}:{member.port}")


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    address, verb, *words = sys.argv[1:]
    if verb == "text":
        text(address)
        return
    with grpc.insecure_channel(address) as channel:
        family = family_pb2_grpc.FamilyServiceStub(channel)
        messages = family
        if verb.startswith("storage-"):
            messages = family_pb2_grpc.StorageServiceStub(channel)
        call = {"timeout": TIMEOUT_S, "wait_for_ready": True}
        match verb.removeprefix("storage-"), words:
            case "store", [number, message]:
                result = messages.Store(family_pb2.StoredMessage(id=int(number), text=message), **call)
                if not result.success:
                    sys.exit(f"ERROR {result.error}")
                print("OK")
            case "retrieve", [number]:
                message = messages.Retrieve(family_pb2.MessageId(id=int(number)), **call)
                print(f"{message.id}: {message.text}")
            case "family", []:
                show(family.GetFamily(family_pb2.Empty(), **call))
            case "join", [host, port]:
                show(family.Join(family_pb2.NodeInfo(host=host, port=int(port)), **call))
            case _:
                sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
