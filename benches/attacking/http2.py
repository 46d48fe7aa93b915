"""HTTP/2 frames by hand (RFC 9113), as far as it takes to send what no library would."""

import socket
import struct

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES = 16 * 1024
CANCEL = struct.pack(">I", 8)
WINDOW_BYTES = 65_535


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def message(body):
    """A gRPC message, not compressed."""
    return b"\0" + struct.pack(">I", len(body)) + body


def field(number, value):
    """A field of bytes (protobuf)."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def text(value):
    if len(value) < 127:
        return bytes([len(value)]) + value
    # An integer that begins with a prefix of seven bits (section 5.1).
    return b"\x7f" + varint(len(value) - 127) + value


def header(name, value):
    """Neither indexed nor compressed (RFC 7541, section 6.2.2)."""
    return b"\0" + text(name) + text(value)


def call(path, *more):
    """The headers of a gRPC call."""
    pairs = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"attack"),
             (b"content-type", b"application/grpc"), (b"te", b"trailers"), *more]
    return b"".join(header(name, value) for name, value in pairs)


class Http2:
    """A connection. What comes is read only where it says so."""

    def __init__(self, sock, window=None):
        self.sock, self.stream = sock, -1
        self.window, self.windows, self.first_window = WINDOW_BYTES, {}, WINDOW_BYTES
        self.read, self.resets, self.goaway = bytearray(), 0, None
        settings = b"" if window is None else struct.pack(">HI", 4, window)
        sock.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))

    def next_stream(self):
        self.stream += 2
        return self.stream

    def begin(self, path, *more, flags=0):
        stream = self.next_stream()
        self.sock.sendall(frame(HEADERS, END_HEADERS | flags, stream, call(path, *more)))
        return stream

    def take(self, wait_s):
        """Takes in what has come within so long."""
        self.sock.settimeout(wait_s)
        try:
            came = self.sock.recv(65536)
        except (socket.timeout, BlockingIOError):
            return
        if not came:
            raise ConnectionError("closed")
        self.read += came
        while len(self.read) >= 9:
            length = int.from_bytes(self.read[:3])
            if len(self.read) < 9 + length:
                break
            kind, flags, stream = struct.unpack(">BBI", self.read[3:9])
            self.handle(kind, flags, stream & 0x7FFFFFFF, bytes(self.read[9 : 9 + length]))
            del self.read[: 9 + length]

    def handle(self, kind, flags, stream, payload):
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack(">HI", payload[at : at + 6])
                if name == 4:
                    self.first_window = value
            self.sock.sendall(frame(SETTINGS, ACK, 0))
        elif kind == WINDOW_UPDATE:
            more = int.from_bytes(payload)
            if stream:
                self.windows[stream] = self.windows.get(stream, 0) + more
            else:
                self.window += more
        elif kind == RST_STREAM:
            self.resets += 1
        elif kind == 7:
            self.goaway = payload[8:].decode(errors="replace") or f"code {int.from_bytes(payload[4:8])}"

    def send(self, stream, data):
        """Sends as much of it as may be sent now; what is left."""
        room = min(self.window, self.first_window + self.windows.get(stream, 0), len(data))
        for at in range(0, room, FRAME_BYTES):
            piece = data[at : min(at + FRAME_BYTES, room)]
            self.sock.sendall(frame(DATA, 0, stream, piece))
        self.window -= room
        self.windows[stream] = self.windows.get(stream, 0) - room
        return data[room:]
