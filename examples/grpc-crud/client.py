#!/usr/bin/env python3
"""A client of ringfort.v1 without stubs: it learns the services and their messages from the node itself, by reflection.

client.py ADDRESS services               what the node serves
client.py ADDRESS CALL [JSON]            ringfort.v1.KV/Put '{"key": "bmFtZQ==", "value": "QWRh"}' (bytes are base64 in JSON)
client.py ADDRESS create|update|put KEY VALUE
client.py ADDRESS read|get|delete KEY
client.py ADDRESS list PREFIX
"""

import base64
import json
import sys

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

TIMEOUT_S = 10


def call(channel: grpc.Channel, name: str, request: dict) -> list[dict]:
    """Makes a call that is named SERVICE/METHOD; answers what came, as a dictionary each."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    service, _, method = name.rpartition("/")
    try:
        method = pool.FindServiceByName(service).FindMethodByName(method)
    except KeyError:
        sys.exit(f"there is no {name} here: `services` lists what the node serves")
    try:
        question = json_format.ParseDict(request, GetMessageClass(method.input_type)())
    except json_format.ParseError as error:
        sys.exit(f"that is no {method.input_type.full_name}: {error}")
    answer = GetMessageClass(method.output_type)
    make = channel.unary_stream if method.server_streaming else channel.unary_unary
    path = f"/{service}/{method.name}"
    ask = make(path, request_serializer=type(question).SerializeToString, response_deserializer=answer.FromString)
    answers = ask(question, timeout=TIMEOUT_S, wait_for_ready=True)
    if not method.server_streaming:
        answers = [answers]
    return [json_format.MessageToDict(message) for message in answers]


def coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def plain(code: str) -> str:
    return base64.b64decode(code).decode()


def change(channel: grpc.Channel, method: str, request: dict) -> None:
    [answer] = call(channel, f"ringfort.v1.KV/{method}", request)
    if "notMet" in answer:
        sys.exit("not done: it is there" if "revision" in answer["notMet"] else "not done: it is not there")
    print("OK")


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    address, verb, *words = sys.argv[1:]
    with grpc.insecure_channel(address) as channel:
        match verb, words:
            case "services", []:
                for name in sorted(ProtoReflectionDescriptorDatabase(channel).get_services()):
                    print(name)
            case "create" | "update" | "put", [key, value]:
                request = {"key": coded(key), "value": coded(value)}
                if verb != "put":
                    request["condition"] = {"present": verb == "update"}
                change(channel, "Put", request)
            case "delete", [key]:
                change(channel, "Delete", {"key": coded(key), "condition": {"present": True}})
            case "read" | "get", [key]:
                [answer] = call(channel, "ringfort.v1.KV/Get", {"key": coded(key)})
                if not answer.get("found"):
                    sys.exit("(not found)")
                print(plain(answer.get("value", "")))
            case "list", [prefix]:
                for frame in call(channel, "ringfort.v1.KV/List", {"prefix": coded(prefix)}):
                    for row in frame["rows"]:
                        print(plain(row["key"]), "=", plain(row.get("value", "")))
            case name, _ if "/" in name and len(words) <= 1:
                try:
                    request = json.loads(words[0]) if words else {}
                except json.JSONDecodeError as error:
                    sys.exit(f"that is no JSON: {error}")
                for answer in call(channel, name, request):
                    print(json.dumps(answer))
            case _:
                sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
