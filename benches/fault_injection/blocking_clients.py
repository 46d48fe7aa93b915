"""Clients without an event loop: gRPC stubs of `ringfort.v1`, and one connection to the text port of each node. Nothing
else runs in this process between a call and what is done next, so a kill comes when it was meant to."""

import itertools
import socket
import time

from .cluster import BACK_S, NODES
from .outcome import CALL_S


class BlockingClients:
    def __init__(self, nodes):
        import grpc
        from ringfort.v1 import cluster_pb2, cluster_pb2_grpc, kv_pb2, kv_pb2_grpc
        self.grpc, self.kv, self.cluster, self.text = grpc, kv_pb2, cluster_pb2, nodes.text
        options = [
            ("grpc.enable_http_proxy", 0), ("grpc.initial_reconnect_backoff_ms", 20),
            ("grpc.min_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 50)]
        self.channels = [grpc.insecure_channel(address, options) for address in nodes.grpc]
        self.stubs = [kv_pb2_grpc.KVStub(channel) for channel in self.channels]
        self.states = [cluster_pb2_grpc.ClusterStub(channel) for channel in self.channels]
        self.lines = [None] * 3

    def ask_any(self, stubs, call, *, first=0):
        """Asks one node after the other until there is an answer."""
        until = time.monotonic() + BACK_S
        for node in itertools.cycle(list(NODES)[first:] + list(NODES)[:first]):
            try:
                return call(stubs[node])
            except self.grpc.RpcError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def state(self):
        request = self.cluster.GetClusterStateRequest()
        return self.ask_any(self.states, lambda stub: stub.GetClusterState(request, timeout=CALL_S))

    def leader(self, number):
        """The node that leads a shard, or None if it is not known."""
        state = self.state()
        leads = {shard.shard: shard.leader_node for shard in state.shards}.get(number, 0)
        names = {node.id: node.name for node in state.nodes}
        return int(names[leads].removeprefix("node")) - 1 if leads in names else None

    def get_many(self, keys, first):
        request = self.kv.GetManyRequest(keys=keys)
        return self.ask_any(self.stubs, lambda stub: stub.GetMany(request, timeout=CALL_S), first=first)

    def begin_increment(self, node, key):
        """Sends it. The result is waited for later."""
        request = self.kv.IncrementRequest(key=key.encode(), by=1)
        return self.stubs[node].Increment.future(request, timeout=10)

    def line(self, node):
        """The connection to a node's text port; a new one if there is none."""
        until = time.monotonic() + BACK_S
        while self.lines[node] is None:
            try:
                self.lines[node] = socket.create_connection(self.text[node], 1)
                self.lines[node].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
        return self.lines[node]

    def answer(self, node):
        """The line that comes, or None if the connection breaks."""
        line, said = self.lines[node], b""
        line.settimeout(15)
        try:
            while not said.endswith(b"\n"):
                more = line.recv(4096)
                if not more:
                    break
                said += more
        except OSError:
            pass
        if said.endswith(b"\n"):
            return said[:-1].decode()
        self.drop_line(node)
        return None

    def drop_line(self, node):
        if self.lines[node] is not None:
            self.lines[node].close()
            self.lines[node] = None

    def close(self):
        for channel in self.channels:
            channel.close()
