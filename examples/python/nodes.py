"""A channel to a cluster: what a gRPC client has to set, which is two options."""

import grpc

# As `ringfort dev` has them.
NODES = "127.0.0.1:50051,127.0.0.1:50052,127.0.0.1:50053"


def connect(addresses: str, *options: tuple) -> grpc.Channel:
    """A channel to any of these nodes, `IP:PORT,IP:PORT`: if one is down, it goes to the next."""
    # One address may have a name in place of its number.
    target = f"ipv4:{addresses}" if "," in addresses else addresses
    return grpc.insecure_channel(
        target,
        options=[
            # Otherwise a target of several is sent as `:authority`, which is none, and each call fails with INTERNAL.
            ("grpc.default_authority", "ringfort"),
            # A value has up to 8 MiB; gRPC takes 4 MiB unless it is told otherwise.
            ("grpc.max_receive_message_length", 16 << 20),
            *options,
        ],
    )
