"""Who gets in at which door of a node that speaks TLS: `run-all.sh` runs it, with the binary's path.

It starts three nodes with certificates by `ringfort certs`, and comes to each door, the gRPC packages, the text port and HTTP, as each kind
of client that there is. It speaks TLS by libraries that Ringfort has no part in: gRPC's own (BoringSSL) and Python's (OpenSSL). What each
client gets is printed as a table, and compared with EXPECTED. Whoever was refused has written nothing.
"""

import contextlib
import datetime
import http.client
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Its library would log each connection that is refused.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from family import family_pb2, family_pb2_grpc
from kv import kv_pb2 as cluster_kv_pb2, kv_pb2_grpc as cluster_kv_pb2_grpc
from kvstore.v1 import kvstore_pb2, kvstore_pb2_grpc
from proto import kv_pb2 as raft_kv_pb2, kv_pb2_grpc as raft_kv_pb2_grpc
from ringfort.v1 import kv_pb2, kv_pb2_grpc

PATIENCE = 60
# For a call that gRPC's library repeats until its time is over.
HOPELESS = 3
TRIES = 20

# What clients get. Who may write and read gets the value back, or 200 by HTTP.
IN = "value"
READY = "200"
# The node says GOAWAY, and why.
NO_TLS = "UNAVAILABLE"
# By the text port, as far as it does not depend on the key.
NOBODY = "ERROR rejected: it is not known who asks"
NO_RIGHT = 'ERROR rejected: user "bob"'
# TLS 1.3 tells a client that its certificate is refused after the client is done: gRPC's library takes that for a lost connection.
REFUSED = "UNAVAILABLE"
STRANGER = "alert: unknown ca"
ENDED = "alert: certificate expired"
# A column is a kind of client, as `clients` makes them: five while rights are not enforced, and three when they are.
COLUMNS = ["no TLS", "no certificate", "another CA's", "one that has ended", "its CA's", "no user's", "no right", "right"]
BY_GRPC = [NO_TLS, "UNAUTHENTICATED", REFUSED, REFUSED, IN, "UNAUTHENTICATED", "PERMISSION_DENIED", IN]
EXPECTED = {
    "ringfort.v1": BY_GRPC,
    "family": BY_GRPC,
    "proto": BY_GRPC,
    "kvstore": BY_GRPC,
    "kv": BY_GRPC,
    "text": ["ERROR rejected: this port speaks TLS only", NOBODY, STRANGER, ENDED, IN, NOBODY, NO_RIGHT, IN],
    "HTTP": ["400", READY, STRANGER, ENDED, READY, READY, READY, READY],
}


class Certificates:
    """A CA that `ringfort certs` has made, and what it has issued."""

    def __init__(self, ringfort, directory):
        self.ringfort, self.directory = ringfort, directory
        self.ca = directory / "ca.crt"
        self.make("init")

    def make(self, *what):
        subprocess.run([self.ringfort, "certs", *what, "--dir", self.directory], check=True, stdout=subprocess.DEVNULL)

    def node(self, name):
        """The flags of `start` for this node."""
        self.make("node", name, "--host", "127.0.0.1")
        certificate, key = self.files(name)
        return ["--tls-ca", self.ca, "--tls-cert", certificate, "--tls-key", key]

    def user(self, name):
        self.make("client", name)
        return self.files(name)

    def files(self, name):
        return self.directory / f"{name}.crt", self.directory / f"{name}.key"

    def ended(self, name):
        """A user's certificate of this CA that held until yesterday."""
        ca = x509.load_pem_x509_certificate(self.ca.read_bytes())
        ca_key = serialization.load_pem_private_key((self.directory / "ca.key").read_bytes(), None)
        key = ec.generate_private_key(ec.SECP256R1())
        day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.timezone.utc)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issued = (
            x509.CertificateBuilder(issuer_name=ca.subject, subject_name=subject, public_key=key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * day)
            .not_valid_after(now - day)
            .sign(ca_key, hashes.SHA256())
        )
        certificate, key_file = self.files(name)
        certificate.write_bytes(issued.public_bytes(serialization.Encoding.PEM))
        pkcs8 = serialization.PrivateFormat.PKCS8
        key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption()))
        return certificate, key_file


class Client:
    """Who speaks TLS with a certificate, or without one, or does not speak TLS."""

    def __init__(self, ca=None, own=None):
        self.ca, self.own = ca, own

    def channel(self, address):
        if self.ca is None:
            return grpc.insecure_channel(address)
        certificate, key = (file.read_bytes() for file in self.own) if self.own else (None, None)
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(self.ca.read_bytes(), key, certificate))

    def socket(self, address):
        host, port = address.split(":")
        plain = socket.create_connection((host, int(port)), timeout=PATIENCE)
        return plain if self.ca is None else self.context().wrap_socket(plain, server_hostname=host)

    def context(self):
        context = ssl.create_default_context(cafile=self.ca)
        if self.own:
            context.load_cert_chain(*self.own)
        return context


def clients(ours, others):
    """One for each of COLUMNS: those from before rights are enforced, and those from then on."""
    return [
        Client(),
        Client(ours.ca),
        Client(ours.ca, others.user("alice")),
        Client(ours.ca, ours.ended("late")),
        Client(ours.ca, ours.user("alice")),
    ], [Client(ours.ca, ours.user("mallory")), Client(ours.ca, ours.user("bob")), Client(ours.ca, ours.files("alice"))]


# Each comes to a door and writes a row, and reads it: its key, a number, is nobody else's. It gives what it reads.


def ringfort_v1(channel, key, timeout):
    kv = kv_pb2_grpc.KVStub(channel)
    kv.Put(kv_pb2.PutRequest(key=key.encode(), value=IN.encode()), timeout=timeout)
    return kv.Get(kv_pb2.GetRequest(key=key.encode()), timeout=timeout).value.decode()


def family(channel, key, timeout):
    register = family_pb2_grpc.FamilyServiceStub(channel)
    register.Store(family_pb2.StoredMessage(id=int(key), text=IN), timeout=timeout)
    return register.Retrieve(family_pb2.MessageId(id=int(key)), timeout=timeout).text


def proto(channel, key, timeout):
    kv = raft_kv_pb2_grpc.KVStub(channel)
    kv.Put(raft_kv_pb2.PutRequest(key=key, value=IN), timeout=timeout)
    return kv.Get(raft_kv_pb2.GetRequest(key=key), timeout=timeout).value


def kvstore(channel, key, timeout):
    kv = kvstore_pb2_grpc.KVStoreStub(channel)
    kv.Put(kvstore_pb2.KeyValue(key=key, value=IN), timeout=timeout)
    return kv.Get(kvstore_pb2.Key(key=key), timeout=timeout).value


def kv(channel, key, timeout):
    kv = cluster_kv_pb2_grpc.KeyValueStub(channel)
    kv.Set(cluster_kv_pb2.SetRequest(key=key, value=IN.encode()), timeout=timeout)
    return kv.Get(cluster_kv_pb2.GetRequest(key=key), timeout=timeout).value.decode()


def by_grpc(door):
    def come(client, address, key):
        with client.channel(address) as channel:
            try:
                return door(channel, key, PATIENCE if client.ca else HOPELESS)
            except grpc.RpcError as error:
                return error.code().name

    return come


def text(client, address, key):
    with client.socket(address) as talk:
        talk.sendall(f"SET {key} {IN}\nGET {key}\n".encode())
        lines = talk.makefile()
        stored = lines.readline().rstrip()
        if stored == "OK":
            return lines.readline().rstrip()
        for rest in (",", " may not", ": show"):
            stored = stored.partition(rest)[0]
        return stored


def by_http(client, address, _):
    host, port = address.split(":")
    if client.ca is None:
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    else:
        connection = http.client.HTTPSConnection(host, int(port), timeout=PATIENCE, context=client.context())
    with contextlib.closing(connection):
        connection.request("GET", "/readyz?quorum=true")
        return str(connection.getresponse().status)


def come(door, client, address, key):
    """What comes of it, in words that do not depend on how long things take."""
    for _ in range(TRIES):
        try:
            return door(client, address, key)
        except (ConnectionError, ssl.SSLEOFError):
            # The end of the connection may overtake the alert that says why.
            continue
        except ssl.SSLError as error:
            alert = (error.reason or str(error)).lower()
            for before in ("tlsv1_alert_", "sslv3_alert_", "tlsv13_alert_"):
                alert = alert.removeprefix(before)
            return f"alert: {alert.replace('_', ' ')}"
    return "the connection ends"


DOORS = {
    "ringfort.v1": (by_grpc(ringfort_v1), "grpc"),
    "family": (by_grpc(family), "grpc"),
    "proto": (by_grpc(proto), "grpc"),
    "kvstore": (by_grpc(kvstore), "grpc"),
    "kv": (by_grpc(kv), "grpc"),
    "text": (text, "text"),
    "HTTP": (by_http, "http"),
}


@contextlib.contextmanager
def cluster(ringfort, certificates, work):
    """Three nodes; where the first one's ports are."""
    with contextlib.ExitStack() as running:
        with contextlib.ExitStack() as held:
            sockets = [held.enter_context(socket.socket()) for _ in range(5)]
            for one in sockets:
                one.bind(("127.0.0.1", 0))
            *grpc_ports, text_port, http_port = (f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)
        for number, address in enumerate(grpc_ports, 1):
            name = f"node{number}"
            peers = ",".join(other for other in grpc_ports if other != address)
            flags = ["--id", name, "--addr", address, "--data-dir", work / name, "--peers", peers, "--shards", "8"]
            flags += ["--text-addr", text_port, "--http", http_port] if number == 1 else ["--http", "off"]
            log = running.enter_context(open(work / f"{name}.log", "w"))
            node = subprocess.Popen([ringfort, "start", *flags, *certificates.node(name)], stdout=log, stderr=log)
            running.callback(node.wait)
            running.callback(node.kill)
        yield {"grpc": grpc_ports[0], "text": text_port, "http": http_port}


def wait_until_ready(client, address):
    until = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError):
            if by_http(client, address, None) == READY:
                return
        if time.monotonic() > until:
            sys.exit(f"{address} is not ready within {PATIENCE} s")
        time.sleep(0.2)


def enforce(ringfort, certificates, address):
    """Rights: alice may do everything, bob is a user and may do nothing, mallory has a certificate and is no user."""
    certificate, key = certificates.files("alice")
    ask = [ringfort, "user", "--addr", address, "--ca", certificates.ca, "--cert", certificate, "--key", key]
    for what in (
        ["add", "alice", "--no-password"],
        ["add", "bob", "--no-password"],
        ["grant", "alice", "cluster"],
        ["grant", "alice", "admin"],
        ["enforce", "on"],
    ):
        # Users need a level that a new cluster rises to within seconds.
        until = time.monotonic() + PATIENCE
        while subprocess.run([*ask[:2], *what, *ask[2:]], capture_output=True).returncode:
            if time.monotonic() > until:
                sys.exit(f"user {' '.join(what)}: not within {PATIENCE} s")
            time.sleep(0.2)
    # This node hears of it within a second.
    certificate, key = certificates.files("mallory")
    asks = [ringfort, "status", "--addr", address, "--ca", certificates.ca, "--cert", certificate, "--key", key]
    until = time.monotonic() + PATIENCE
    while subprocess.run(asks, capture_output=True).returncode == 0:
        if time.monotonic() > until:
            sys.exit(f"rights are not enforced within {PATIENCE} s")
        time.sleep(0.1)


def rows(client, address):
    with client.channel(address) as channel:
        pages = list(kv_pb2_grpc.KVStub(channel).List(kv_pb2.ListRequest(), timeout=PATIENCE))
    assert pages[-1].last, "the stream was cut on its way"
    return {row.key.decode(): row.value.decode() for page in pages for row in page.rows}


def table(found):
    lines = [["", *COLUMNS], *([door, *cells] for door, cells in found.items())]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def main():
    ringfort = str(Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        ours, others = Certificates(ringfort, work / "certs"), Certificates(ringfort, work / "others")
        with cluster(ringfort, ours, work) as ports:
            before, after = clients(ours, others)
            wait_until_ready(before[-1], ports["http"])
            found, written = {door: [] for door in DOORS}, {}
            for is_enforced, callers in enumerate((before, after)):
                if is_enforced:
                    enforce(ringfort, ours, ports["grpc"])
                for place, (door, (how, port)) in enumerate(DOORS.items(), 1):
                    keys = [str(100 * place + 10 * is_enforced + column) for column in range(len(callers))]
                    cells = [come(how, client, ports[port], key) for client, key in zip(callers, keys)]
                    written |= {key: IN for key, cell in zip(keys, cells) if cell == IN}
                    found[door] += cells
            print("what clients get that speak no TLS, or show no certificate, or one that is:")
            print(table(found))
            wrong = [
                f"{door}, {column}: {cell}, and not {wanted}"
                for door in DOORS
                for column, cell, wanted in zip(COLUMNS, found[door], EXPECTED[door], strict=True)
                if cell != wanted
            ]
            assert not wrong, "\n".join(wrong)
            assert rows(after[-1], ports["grpc"]) == written, "who was refused has written something"
        print(f"{len(written)} rows were written, by those who get in, and no others")


if __name__ == "__main__":
    main()
