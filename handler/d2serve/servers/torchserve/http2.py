"""The part of HTTP/2 (RFC 9113) that keeps one gRPC call open and receives GOAWAY."""

import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 1, 3, 4, 6, 7
ACKNOWLEDGE = END_STREAM = 1
END_HEADERS = 4
CONNECTION, CALL = 0, 1
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
        """Whether the server says that it will send no more of the call's answer."""
        return self.stream == CALL and (self.kind == RST_STREAM or bool(self.flags & END_STREAM))

    def encoded(self) -> bytes:
        """The frame on the wire (RFC 9113, section 4.1)."""
        length = len(self.payload).to_bytes(3, "big")
        return length + struct.pack(">BBI", self.kind, self.flags, self.stream) + self.payload


def open_call(connection: socket.socket, path: str, more: Mapping[str, str]) -> None:
    """Begins a gRPC call and leaves it open: its headers are sent, its message never is.

    Names and values of `more` headers may have 127 bytes each.
    """
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        **more,
    }
    headers = b"".join(_literal(name, value) for name, value in fields.items())
    frames = (Frame(SETTINGS, 0, CONNECTION), Frame(HEADERS, END_HEADERS, CALL, headers))
    connection.sendall(PREFACE + b"".join(frame.encoded() for frame in frames))


def frames(connection: socket.socket) -> Iterator[Frame]:
    """What the server sends, until it closes; its settings and pings are acknowledged."""
    with connection.makefile("rb") as incoming:
        while header := incoming.read(FRAME_HEADER_BYTES):
            kind, flags, stream = struct.unpack(">BBI", header[3:])
            frame = Frame(kind, flags, stream, incoming.read(int.from_bytes(header[:3], "big")))
            if kind in (SETTINGS, PING) and not flags & ACKNOWLEDGE:
                answer = frame.payload if kind == PING else b""
                connection.sendall(Frame(kind, ACKNOWLEDGE, CONNECTION, answer).encoded())
            yield frame


def _literal(name: str, value: str) -> bytes:
    """A header field without indexing and Huffman codes (RFC 7541, section 6.2.2)."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))
