"""Whether the public protos say where their stubs go, as `protoc` has read them: check.py DESCRIPTORS, from `protoc --descriptor_set_out`.
Exit code 1 if not. What they say on the wire is compared with wire.txt by the crate's own test.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet


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
    unsaid = list(unnamed(files))
    for line in unsaid:
        print(line, file=sys.stderr)
    return int(bool(unsaid))


if __name__ == "__main__":
    sys.exit(main())
