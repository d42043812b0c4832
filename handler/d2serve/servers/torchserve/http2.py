"""The part of HTTP/2 (RFC 9113) that keeps one gRPC call open and receives GOAWAY."""

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Frame types, flags and stream ids.
HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 1, 3, 4, 6, 7
ACK = END_STREAM = 1
END_HEADERS = 4
CONNECTION_STREAM, CALL_STREAM = 0, 1
FRAME_HEADER_BYTES = 9


@dataclass(frozen=True)
class Frame:
    """One frame; `stream` is 0 for the connection itself."""

    kind: int
    flags: int
    stream: int
    payload: bytes = b""

    @property
    def ends_call(self) -> bool:
        """True if the server sends no more of the call's response after this frame."""
        ends_stream = self.kind == RST_STREAM or bool(self.flags & END_STREAM)
        return self.stream == CALL_STREAM and ends_stream

    def encode(self) -> bytes:
        """Encode the frame (RFC 9113, section 4.1)."""
        length = len(self.payload).to_bytes(3, "big")
        return length + struct.pack(">BBI", self.kind, self.flags, self.stream) + self.payload


def open_call(connection: socket.socket, path: str, headers: Mapping[str, str]) -> None:
    """Begin a gRPC call and leave it open: send its headers, but never its message.

    Names and values of `headers` may have 127 bytes each.
    """
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        **headers,
    }
    block = b"".join(_literal_field(name, value) for name, value in fields.items())
    settings = Frame(SETTINGS, 0, CONNECTION_STREAM)
    call = Frame(HEADERS, END_HEADERS, CALL_STREAM, block)
    connection.sendall(PREFACE + settings.encode() + call.encode())


def read_frame(connection: socket.socket) -> Frame | None:
    """Read the server's next frame; None if it has closed the connection.

    SETTINGS and PING frames are acknowledged.

    Raises:
        OSError: the connection broke.
    """
    header = _read_exactly(connection, FRAME_HEADER_BYTES)
    if not header:
        return None
    kind, flags, stream = struct.unpack(">BBI", header[3:])
    payload = _read_exactly(connection, int.from_bytes(header[:3], "big"))
    if kind in (SETTINGS, PING) and not flags & ACK:
        echo = payload if kind == PING else b""
        connection.sendall(Frame(kind, ACK, CONNECTION_STREAM, echo).encode())
    return Frame(kind, flags, stream, payload)


def _read_exactly(connection: socket.socket, count: int) -> bytes:
    """Read `count` bytes without reading ahead; fewer at the end of the connection."""
    received = bytearray()
    while len(received) < count and (part := connection.recv(count - len(received))):
        received += part
    return bytes(received) if len(received) == count else b""


def _literal_field(name: str, value: str) -> bytes:
    """A header field without indexing and without Huffman coding (RFC 7541, section 6.2.2)."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))
