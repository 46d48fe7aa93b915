"""What a node is attacked with: each from other addresses than the steady client's, until it is told to stop.

An attack is a function of the node's ports and of when it ends; it counts what it did and what the node did about it. None sends what a
server could stumble over that keeps to the protocol: they are floods, and clients that send or take nothing more.
"""

import collections
import socket
import ssl
import threading
import time

from attacking.http2 import CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, FRAME_BYTES, HEADERS, PING, PREFACE, RST_STREAM
from attacking.http2 import SETTINGS, Http2, call, field, frame, message

HERE = "127.0.0.2"
SET, GET, LIST = b"/kv.KeyValue/Set", b"/kv.KeyValue/Get", b"/ringfort.v1.KV/List"
LARGE = 8 * 1024 * 1024
PATIENCE_S = 5


def connect(port, source=HERE, receive_bytes=None):
    sock = socket.socket()
    sock.settimeout(PATIENCE_S)
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.bind((source, 0))
    sock.connect(("127.0.0.1", port))
    return sock


def is_open(sock):
    """Whether the other side has not closed it; what came is thrown away."""
    sock.setblocking(False)
    try:
        return bool(sock.recv(65536))
    except BlockingIOError:
        return True
    except OSError:
        return False


def refill(held, wanted, make, done):
    """Opens as many as are missing, and counts those that the node has closed."""
    open_ones = [sock for sock in held if is_open(sock)]
    done["closed"] += len(held) - len(open_ones)
    while len(open_ones) < wanted:
        try:
            open_ones.append(make())
            done["opened"] += 1
        except OSError:
            done["not connected"] += 1
            break
    return open_ones


def connections(ports, until):
    """Greets, says nothing more, and comes again when it is closed."""
    done, held = collections.Counter(), []

    def make():
        sock = connect(ports["grpc"])
        sock.sendall(PREFACE + frame(SETTINGS, 0, 0))
        return sock

    while time.monotonic() < until:
        held = refill(held, 6_000, make, done)
        time.sleep(0.05)
    return done


def half_handshakes(ports, until):
    """Begins a ClientHello and goes no further."""
    done, held = collections.Counter(), []
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        hello.do_handshake()
    except ssl.SSLWantReadError:
        pass
    half = outgoing.read()[:100]

    def make():
        sock = connect(ports["grpc"])
        sock.sendall(half)
        return sock

    while time.monotonic() < until:
        held = refill(held, 1_000, make, done)
        time.sleep(0.05)
    return done


def whole_handshakes(ports, until):
    """Makes handshakes, one after the other on eight threads, and leaves."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])

    def one(done):
        try:
            context.wrap_socket(connect(ports["grpc"])).close()
            done["made"] += 1
        except OSError:
            done["failed"] += 1

    return threads(8, one, until)


def drip(ports, until):
    """A byte of a request now and then, at each port."""
    done, held = collections.Counter(), {}
    begins = {
        "grpc": PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, call(SET)),
        "text": b"SET key " + b"v" * 1000,
        "http": b"GET /metrics HTTP/1.1\r\nhost: " + b"h" * 1000,
    }
    sent = dict.fromkeys(begins, 0)
    while time.monotonic() < until:
        for port, bytes_ in begins.items():
            held[port] = refill(held.get(port, []), 300, lambda port=port: connect(ports[port]), done)
            for sock in held[port]:
                try:
                    sock.send(bytes_[sent[port] : sent[port] + 1])
                    done["bytes"] += 1
                except OSError:
                    pass
            sent[port] = (sent[port] + 1) % len(bytes_)
        time.sleep(0.2)
    return done


def large_lines(ports, until):
    """Lines of 8 MiB at the text port, on as many connections as there are threads, one after the other."""
    line = b"SET large " + b"v" * LARGE + b"\n"

    def one(done):
        sock = connect(ports["text"])
        sock.settimeout(2 * PATIENCE_S)
        with sock, sock.makefile("rb") as answers:
            while time.monotonic() < until:
                sock.sendall(line)
                answer = answers.readline()
                done["stored" if answer == b"OK\n" else "refused"] += 1
                if not answer:
                    return

    return threads(48, one, until)


def large_calls(ports, until):
    """Calls with values of 8 MiB, eight at a time on each connection, as fast as the windows let them."""
    whole = message(field(1, b"large") + field(2, b"v" * LARGE))

    def one(done):
        client = Http2(connect(ports["grpc"]))
        left = {}
        while time.monotonic() < until:
            while len(left) < 8:
                left[client.begin(SET)] = whole
                done["begun"] += 1
            for stream, rest in list(left.items()):
                left[stream] = client.send(stream, rest)
                if not left[stream]:
                    client.sock.sendall(frame(DATA, END_STREAM, stream))
                    del left[stream]
                    done["whole"] += 1
            resets = client.resets
            client.take(0.2)
            done["reset"] += client.resets - resets

    return threads(24, one, until)


def half_calls(ports, until):
    """Calls that say 8 MiB, send what the windows take at once, and stop."""
    half = (message(field(1, b"large") + field(2, b"v" * LARGE)))[:512 * 1024]
    done, held = collections.Counter(), []

    def make():
        sock = connect(ports["grpc"])
        client = Http2(sock)
        for _ in range(3):
            stream = client.begin(SET)
            client.take(0.05)
            client.send(stream, half)
        return sock

    while time.monotonic() < until:
        held = refill(held, 200, make, done)
        time.sleep(0.05)
    return done


def unread_lists(ports, until):
    """Lists of all rows, of which nothing is taken; windows are large, sockets small."""
    done, held = collections.Counter(), []

    def make():
        client = Http2(connect(ports["grpc"], receive_bytes=4096), window=1 << 30)
        for _ in range(20):
            stream = client.begin(LIST)
            client.sock.sendall(frame(DATA, END_STREAM, stream, message(b"")))
            done["lists"] += 1
        return client.sock

    while time.monotonic() < until:
        held = [sock for sock in held if sock.fileno() >= 0]
        while len(held) < 50:
            held.append(make())
        time.sleep(0.1)
    return done


def unread_gets(ports, until):
    """Gets of a large value through the text port, many at once, of which nothing is taken."""
    done, held = collections.Counter(), []
    while time.monotonic() < until:
        while len(held) < 100:
            sock = connect(ports["text"], receive_bytes=4096)
            sock.sendall(b"GET big\n" * 200)
            done["commands"] += 200
            held.append(sock)
        time.sleep(0.1)
    return done


def wrong_passwords(ports, until):
    """Guesses, from an address of their own for every five, since one address alone is slowed soon."""
    lock, numbers = threading.Lock(), iter(range(1_000_000))

    def one(done):
        with lock:
            number = next(numbers)
        sock = connect(ports["text"], f"127.{1 + number // 62_500 % 200}.{number // 250 % 250}.{1 + number % 250}")
        with sock, sock.makefile("rb") as answers:
            for guess in range(5):
                sock.sendall(b"AUTH user%d guess%d\n" % (number, guess))
                done["slowed" if b"too many" in answers.readline() else "looked at"] += 1

    return threads(80, one, until)


def resets(ports, until):
    """Begins calls and gives them up at once (as in CVE-2023-44487), as fast as they are taken."""
    return frames_in_bulk(ports, until, lambda stream: frame(HEADERS, END_HEADERS, stream, call(GET)) + frame(RST_STREAM, 0, stream, CANCEL))


def half_resets(ports, until):
    """The same with calls that a handler has, which waits for their bytes."""
    some = message(field(1, b"key"))[:3]
    return frames_in_bulk(
        ports, until,
        lambda stream: frame(HEADERS, END_HEADERS, stream, call(GET)) + frame(DATA, 0, stream, some) + frame(RST_STREAM, 0, stream, CANCEL))


def pings(ports, until):
    return frames_in_bulk(ports, until, lambda stream: frame(PING, 0, 0, b"12345678") * 8)


def settings(ports, until):
    return frames_in_bulk(ports, until, lambda stream: frame(SETTINGS, 0, 0) * 8)


def big_headers(ports, until):
    """Calls with headers of 60 KiB, of which 16 KiB are allowed."""
    block = call(GET, (b"x-padding", b"p" * 60_000))

    def make(stream):
        first = frame(HEADERS, END_STREAM, stream, block[:FRAME_BYTES])
        rest = [block[at : at + FRAME_BYTES] for at in range(FRAME_BYTES, len(block), FRAME_BYTES)]
        last = len(rest) - 1
        return first + b"".join(frame(CONTINUATION, END_HEADERS if at == last else 0, stream, part) for at, part in enumerate(rest))

    return frames_in_bulk(ports, until, make, at_once=1)


def frames_in_bulk(ports, until, make, at_once=64):
    """Four connections that send these one after the other, and read what is answered."""

    def one(done):
        client = Http2(connect(ports["grpc"]))
        client.take(PATIENCE_S)
        try:
            while time.monotonic() < until:
                client.sock.settimeout(PATIENCE_S)
                client.sock.sendall(b"".join(make(client.next_stream()) for _ in range(at_once)))
                done["sent"] += at_once
                client.take(0.001)
        finally:
            done["told: " + client.goaway if client.goaway else "closed"] += 1
            client.sock.close()

    return threads(4, one, until)


def threads(count, one, until):
    """Does this again and again on so many threads; the sum of what they count."""
    counts = [collections.Counter() for _ in range(count)]

    def work(done):
        while time.monotonic() < until:
            try:
                one(done)
            except OSError:
                done["cut off"] += 1
                time.sleep(0.05)

    running = [threading.Thread(target=work, args=(done,), daemon=True) for done in counts]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(max(0, until - time.monotonic()) + 3 * PATIENCE_S)
    return sum(counts, collections.Counter())


# Name, what does it, whether the node has TLS.
ALL = [
    ("connections from one address", connections, False),
    ("half-open TLS handshakes", half_handshakes, True),
    ("whole TLS handshakes", whole_handshakes, True),
    ("a byte now and then, all ports", drip, False),
    ("lines of 8 MiB", large_lines, False),
    ("calls of 8 MiB", large_calls, False),
    ("halves of calls of 8 MiB", half_calls, False),
    ("lists never read", unread_lists, False),
    ("pipelined gets never read", unread_gets, False),
    ("wrong passwords", wrong_passwords, False),
    ("resets of calls", resets, False),
    ("resets of calls under way", half_resets, False),
    ("pings", pings, False),
    ("empty settings", settings, False),
    ("big headers", big_headers, False),
]
