"""Client behaviours that no HTTP library has, on a plain socket: one connection per request."""

import asyncio
import io
import socket
import struct
from contextlib import suppress
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import Any
from urllib.parse import urlsplit

from bench.http.messages import CLOSED, RAW, RESET_EARLY, RESET_LATE, SLOW, Reply, Request, is_whole

SLOW_BYTES, SLOW_PAUSE_S = 5, 1.0
CHUNK_BYTES = 1 << 18


async def exchange(url: str, request: Request, body: bytes) -> Reply:
    """Send a request with a behaviour other than KEPT.

    Raises:
        OSError: the connection failed.
    """
    parts = urlsplit(url)
    fields = {"Host": parts.netloc, **request.headers, "Content-Length": str(len(body))}
    fields |= {"Connection": "close"}
    head = f"POST {parts.path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
    message = body if request.behaviour == RAW else f"{head}\r\n".encode("latin-1") + body
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    try:
        if request.behaviour in (CLOSED, RAW):
            return await _send_and_read(reader, writer, message)
        if request.behaviour == SLOW:
            for position in range(SLOW_BYTES):
                writer.write(message[position : position + 1])
                await asyncio.sleep(SLOW_PAUSE_S)
        if request.behaviour == RESET_EARLY:
            writer.write(message[: len(message) // 2])
            await writer.drain()
        if request.behaviour == RESET_LATE:
            writer.write(message)
            await reader.read(1)
        _reset_on_close(writer)
        return Reply()
    finally:
        writer.transport.abort()


async def _send_and_read(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes
) -> Reply:
    """Read while sending: a server may respond before it has received everything."""

    async def send() -> None:
        with suppress(OSError):
            writer.write(message)
            await writer.drain()

    sending = asyncio.create_task(send())
    received = bytearray()
    try:
        with suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                received += chunk
    finally:
        sending.cancel()
    return parse(bytes(received))


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    """Close as the system does for a killed process: by RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class _Received(io.BytesIO):
    """A socket for HTTPResponse that stays readable after the body's end."""

    def makefile(self, *_: Any) -> "_Received":
        return self

    def close(self) -> None:
        """Keep the rest, which is the surplus."""


def parse(received: bytes) -> Reply:
    """The first response in `received`; without one, all of it is surplus."""
    file = _Received(received)
    response = HTTPResponse(file)  # type: ignore[arg-type]
    complete = True
    try:
        response.begin()
        body = response.read()
    except IncompleteRead as error:
        body, complete = error.partial, False
    except HTTPException:
        return Reply(surplus=len(received))
    return Reply(
        status=response.status,
        body=body,
        whole=complete and is_whole(body),
        request_id=response.headers.get("x-request-id", ""),
        surplus=len(received) - file.tell(),
    )
