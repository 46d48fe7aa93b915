"""The gRPC packages: `ringfort.v1`, `proto`, `kvstore.v1`, `kv` and `family`."""

from ..outcome import CALL_S, REJECTED, UNKNOWN, Failed, Odd


class Grpc:
    """A gRPC package: a channel to each node, for all tasks."""

    deletes = False

    def __init__(self, nodes):
        import grpc
        options = [
            ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0),
            ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 500),
            ("grpc.max_reconnect_backoff_ms", 300)]
        self.grpc = grpc
        self.channels = [grpc.aio.insecure_channel(address, options) for address in nodes.grpc]
        self.stubs = [self.stub(channel) for channel in self.channels]

    def client(self):
        return self

    async def is_ready(self, node):
        return self.channels[node].get_state(try_to_connect=True) is self.grpc.ChannelConnectivity.READY

    async def call(self, method, request):
        try:
            return await method(request, timeout=CALL_S)
        except self.grpc.aio.AioRpcError as error:
            fate = dict(error.trailing_metadata() or ()).get("ringfort-outcome", UNKNOWN)
            raise Failed(fate, f"{error.code().name}: {error.details()}") from error

    async def get_or_none(self, method, request):
        """For packages whose missing keys are NOT_FOUND."""
        try:
            return (await self.call(method, request)).value, None
        except Failed as failed:
            if failed.why.startswith("NOT_FOUND"):
                return None, None
            raise

    async def close(self):
        for channel in self.channels:
            await channel.close()


class V1(Grpc):
    name, deletes = "ringfort.v1", True

    def stub(self, channel):
        from ringfort.v1 import kv_pb2, kv_pb2_grpc
        self.pb, self.consistency = kv_pb2, kv_pb2.CONSISTENCY_LINEARIZABLE
        return kv_pb2_grpc.KVStub(channel)

    async def set(self, node, key, write):
        request = self.pb.PutRequest(key=key.name.encode(), value=key.value(write.number).encode())
        answer = await self.call(self.stubs[node].Put, request)
        key.record_revision(write, answer.receipt.revision)

    async def delete(self, node, key, write):
        await self.call(self.stubs[node].Delete, self.pb.DeleteRequest(key=key.name.encode()))

    async def get(self, node, name):
        request = self.pb.GetRequest(key=name.encode(), consistency=self.consistency)
        answer = await self.call(self.stubs[node].Get, request)
        return (answer.value.decode(), answer.revision) if answer.found else (None, None)

    async def add(self, node, name):
        request = self.pb.IncrementRequest(key=name.encode(), by=1)
        return (await self.call(self.stubs[node].Increment, request)).value


class Proto(Grpc):
    name = "proto"

    def stub(self, channel):
        from proto import kv_pb2, kv_pb2_grpc
        self.pb = kv_pb2
        return kv_pb2_grpc.KVStub(channel)

    async def set(self, node, key, write):
        await self.call(self.stubs[node].Put, self.pb.PutRequest(key=key.name, value=key.value(write.number)))

    async def get(self, node, name):
        return await self.get_or_none(self.stubs[node].Get, self.pb.GetRequest(key=name))


class KvStore(Grpc):
    name = "kvstore.v1"

    def stub(self, channel):
        from kvstore.v1 import kvstore_pb2, kvstore_pb2_grpc
        self.pb = kvstore_pb2
        return kvstore_pb2_grpc.KVStoreStub(channel)

    async def set(self, node, key, write):
        ack = await self.call(self.stubs[node].Put, self.pb.KeyValue(key=key.name, value=key.value(write.number)))
        if not ack.ok:
            raise Odd(ack.message)

    async def get(self, node, name):
        return await self.get_or_none(self.stubs[node].Get, self.pb.Key(key=name))

    async def list(self, node):
        from google.protobuf.empty_pb2 import Empty
        try:
            return {row.key: row.value async for row in self.stubs[node].List(Empty(), timeout=10 * CALL_S)}
        except self.grpc.aio.AioRpcError as error:
            raise Failed(REJECTED, f"{error.code().name}: {error.details()}") from error


class Kv(Grpc):
    """Its writes have their numbers for versions. Some that are called "old" have a version that the key is past."""

    name, deletes = "kv", True

    def stub(self, channel):
        from kv import kv_pb2, kv_pb2_grpc
        self.pb = kv_pb2
        return kv_pb2_grpc.KeyValueStub(channel)

    async def set(self, node, key, write):
        value = key.value(write.number).encode()
        await self.call(self.stubs[node].Set, self.pb.SetRequest(key=key.name, value=value, version=write.number))

    async def set_old(self, node, key, write, version):
        value = key.value(write.number).encode()
        if write.number % 2:
            await self.call(self.stubs[node].Set, self.pb.SetRequest(key=key.name, value=value, version=version))
            return
        request = self.pb.ReplicateRequest(key=key.name, value=value, version=version)
        if (await self.call(self.stubs[node].Replicate, request)).ok:
            raise Odd(f"Replicate says that version {version} had an effect")

    async def delete(self, node, key, write):
        await self.call(self.stubs[node].Delete, self.pb.DeleteRequest(key=key.name, version=write.number))

    async def get(self, node, name):
        answer = await self.call(self.stubs[node].Get, self.pb.GetRequest(key=name))
        return (answer.value.decode() if answer.found else None), None


class Family(Grpc):
    name = "family"

    def stub(self, channel):
        from family import family_pb2, family_pb2_grpc
        self.pb = family_pb2
        return family_pb2_grpc.StorageServiceStub(channel)

    async def set(self, node, key, write):
        message = self.pb.StoredMessage(id=int(key.name), text=key.value(write.number))
        result = await self.call(self.stubs[node].Store, message)
        if not result.success:
            raise Odd(result.error)

    async def get(self, node, name):
        try:
            return (await self.call(self.stubs[node].Retrieve, self.pb.MessageId(id=int(name)))).text, None
        except Failed as failed:
            if failed.why.startswith("NOT_FOUND"):
                return None, None
            raise
