"""Reads HTTP responses from a socket, to the byte."""

import socket
from contextlib import suppress

from bench.load.answers import Reply, is_whole
from handler.lifecycle.http1 import HEAD_END, parse_head

CHUNK_BYTES = 1 << 18
REQUEST_ID = "x-request-id"


def read_one(connection: socket.socket) -> Reply:
    """One response, and what has come with it.

    Raises:
        OSError: the connection broke, or nothing came for its timeout.
    """
    received = bytearray()
    while not _is_complete(bytes(received)):
        chunk = connection.recv(CHUNK_BYTES)
        if not chunk:
            break
        received += chunk
    return parsed(bytes(received))


def read_all(connection: socket.socket) -> bytes:
    """All that comes until the server ends the connection, or nothing more comes in time."""
    received = bytearray()
    with suppress(OSError):
        while chunk := connection.recv(CHUNK_BYTES):
            received += chunk
    return bytes(received)


def _is_complete(received: bytes) -> bool:
    encoded, separator, rest = received.partition(HEAD_END)
    head = parse_head(encoded) if separator else None
    return head is not None and len(rest) >= (head.body_bytes() or 0)


def parsed(received: bytes) -> Reply:
    """The first response in it; no answer where none is whole up to its body."""
    encoded, separator, rest = received.partition(HEAD_END)
    head = parse_head(encoded) if separator else None
    status = head.first_line.split()[1:2] if head else []
    if head is None or not status or not status[0].isdecimal():
        return Reply(surplus=len(received))
    length = head.body_bytes() or 0
    body = rest[:length]
    return Reply(
        status=int(status[0]),
        body=body,
        whole=len(body) == length and is_whole(body),
        request_id="".join(head.values(REQUEST_ID)),
        surplus=len(rest) - len(body),
        last="close" in [value.lower() for value in head.values("connection")],
    )
