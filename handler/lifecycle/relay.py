"""A port that passes its connections on to another one, until standard input ends.

Run as a script by the worker that is ready to serve (`handler.lifecycle.front_door`). At the end
of its input it takes no new connections, and ends when those that it has are closed.
"""

import asyncio
import sys
from collections.abc import Awaitable
from contextlib import closing, suppress

READY = b"ready\n"
CHUNK_BYTES = 1 << 18
Address = tuple[str, int]


class Relay:
    """Copies bytes both ways between each client and `upstream`."""

    def __init__(self, upstream: Address) -> None:
        self._upstream = upstream
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, public: Address, until: Awaitable[object]) -> None:
        """Listens until `until` is done, then lets the connections finish."""
        server = await asyncio.start_server(self._accept, *public, reuse_port=True)
        sys.stdout.buffer.write(READY)
        sys.stdout.buffer.flush()
        await until
        server.close()
        while self._connections:
            await asyncio.wait(self._connections)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._pass_on(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A side that is gone ends the connection, and closing tells the other side.
        with suppress(OSError), closing(writer):
            server_reader, server_writer = await asyncio.open_connection(*self._upstream)
            with closing(server_writer):
                await asyncio.gather(_copy(reader, server_writer), _copy(server_reader, writer))


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while chunk := await source.read(CHUNK_BYTES):
        target.write(chunk)
        await target.drain()
    # Who has said all may still listen.
    target.write_eof()


async def _end_of_input() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


def address(text: str) -> Address:
    """`host:port` as a pair."""
    host, _, port = text.rpartition(":")
    return host, int(port)


async def main(public: str, upstream: str) -> None:
    """Relay between the two `host:port` until standard input ends."""
    await Relay(address(upstream)).serve(address(public), _end_of_input())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
