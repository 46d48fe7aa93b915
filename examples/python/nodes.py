"""A channel to a cluster: what a gRPC client has to set, which is two options, and files where the nodes speak TLS."""

import os
from pathlib import Path

import grpc

# As `ringfort dev` has them.
NODES = "127.0.0.1:50051,127.0.0.1:50052,127.0.0.1:50053"


def connect(addresses: str, *options: tuple) -> grpc.Channel:
    """A channel to any of these nodes, `IP:PORT,IP:PORT`: if one is down, it goes to the next."""
    # One address may have a name in place of its number.
    target = f"ipv4:{addresses}" if "," in addresses else addresses
    options = [
        # Otherwise a target of several is sent as `:authority`, which is none, and each call fails with INTERNAL. With TLS it is also the
        # name that the nodes' certificates have to have; those of `ringfort certs` have this one.
        ("grpc.default_authority", "localhost"),
        # A value has up to 8 MiB; gRPC takes 4 MiB unless it is told otherwise.
        ("grpc.max_receive_message_length", 16 << 20),
        *options,
    ]
    # As the command line: the CA's certificate, and this client's own with its key, if it has one.
    ca, certificate, key = (read(f"RINGFORT_{name}") for name in ("CA", "CERT", "KEY"))
    if ca is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(ca, key, certificate), options)


def read(variable: str) -> bytes | None:
    """What is in the file that this variable names."""
    path = os.environ.get(variable)
    return Path(path).read_bytes() if path else None
