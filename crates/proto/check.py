"""Compares what four public protos say on the wire with wire.txt: clients' stubs are out there, and can't be changed with us.

check.py DESCRIPTORS            from `protoc --descriptor_set_out`; exit code 1 if there is a difference
check.py DESCRIPTORS --write    writes wire.txt

One line a field (message, field, number, type) and one a method (service, method, question, answer). Comments, the order of
things in a file and files' names are free.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet

WIRE = Path(__file__).with_name("wire.txt")
# Those of other systems. `ringfort.v1` is our own, and its stubs are made from these files.
PACKAGES = {"family", "proto", "kvstore.v1", "kv"}


def kind(field: FieldDescriptorProto) -> str:
    named = field.type_name.removeprefix(".") or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"repeated {named}" if field.label == FieldDescriptorProto.LABEL_REPEATED else named


def fields(scope: str, message: DescriptorProto) -> Iterator[str]:
    name = f"{scope}.{message.name}"
    yield f"message {name}"
    for field in message.field:
        yield f"field {name}.{field.name} = {field.number} {kind(field)}"
    for inner in message.nested_type:
        yield from fields(name, inner)


def wire(files: FileDescriptorSet) -> Iterator[str]:
    for file in files.file:
        if file.package not in PACKAGES:
            continue
        for message in file.message_type:
            yield from fields(file.package, message)
        for service in file.service:
            for method in service.method:
                question, answer = method.input_type.removeprefix("."), method.output_type.removeprefix(".")
                asked = "stream " * method.client_streaming + question
                answered = "stream " * method.server_streaming + answer
                yield f"method {file.package}.{service.name}/{method.name} ({asked}) returns ({answered})"


def unnamed(files: FileDescriptorSet) -> Iterator[str]:
    """Public files whose stubs a generator would put where it thinks best."""
    for file in files.file:
        if file.package.startswith("google."):
            continue
        for option in ("go_package", "java_package", "java_multiple_files"):
            if not file.options.HasField(option):
                yield f"{file.name} does not say its {option}"


def main() -> int:
    files = FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())
    now = sorted(wire(files))
    if sys.argv[2:] == ["--write"]:
        WIRE.write_text("\n".join(now) + "\n")
        return 0
    before = WIRE.read_text().splitlines()
    for line in sorted(set(before) - set(now)):
        print(f"wire.txt has, and the protos don't: {line}", file=sys.stderr)
    for line in sorted(set(now) - set(before)):
        print(f"the protos have, and wire.txt doesn't: {line}", file=sys.stderr)
    unsaid = list(unnamed(files))
    for line in unsaid:
        print(line, file=sys.stderr)
    return int(before != now or bool(unsaid))


if __name__ == "__main__":
    sys.exit(main())
