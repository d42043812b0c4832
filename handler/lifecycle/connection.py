"""One client's connection through the front door to TorchServe and back."""

import asyncio
import time
from collections.abc import Callable
from contextlib import closing, suppress

from handler.errors import RequestError, internal
from handler.lifecycle.own_answers import not_ready
from handler.lifecycle.requests import RequestStream
from handler.lifecycle.responses import ResponseStream, error_response
from handler.lifecycle.upstream import CHUNK_BYTES, Upstream

LINGER_S = 2.0
LAST = (("connection", "close"),)


class Connection:
    """Passes bytes both ways between a client and TorchServe.

    Args:
        reader, writer: the client's.
        is_ready: whether any worker can take requests.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        is_ready: Callable[[], bool],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._requests = RequestStream()
        self._responses = ResponseStream(is_ready)

    async def run(self, host: str, port: int) -> None:
        """Until one side has gone; a request that TorchServe leaves unanswered gets an error.

        When the task is cancelled, a request that waits is told that no worker is ready.
        """
        # A side that is gone ends the connection, and closing tells the other side.
        with suppress(OSError), closing(self._writer):
            server = await Upstream.connected(host, port)
            with closing(server):
                upload = asyncio.create_task(self._upload(server))
                try:
                    await self._download(server)
                    self._end(internal())
                    # A client that still sends would not read its answer if it were cut off now.
                    await asyncio.wait({upload}, timeout=LINGER_S)
                except asyncio.CancelledError:
                    self._end(not_ready())
                finally:
                    upload.cancel()
                    # Its socket is closed next.
                    await asyncio.wait({upload})

    async def _upload(self, server: Upstream) -> None:
        try:
            while chunk := await self._reader.read(CHUNK_BYTES):
                passed = self._requests.feed(chunk, time.monotonic())
                if self._requests.blind:
                    self._responses.limit = self._requests.understood
                await server.send(passed)
        except OSError:
            server.shut()
            return
        await server.send(self._requests.rest())
        server.end()

    async def _download(self, server: Upstream) -> None:
        with suppress(OSError):
            while not self._is_over() and (chunk := await server.read()):
                self._writer.write(self._responses.feed(chunk))
                await self._writer.drain()

    def _is_over(self) -> bool:
        """Whether the client has the answer after which it wanted the connection to end.

        TorchServe keeps connections open after a good answer, whatever the client has asked for.
        """
        return self._requests.last is not None and self._responses.complete >= self._requests.last

    def _end(self, error: RequestError) -> None:
        """The last words to the client."""
        self._writer.write(self._responses.rest() or self._unanswered(error))
        if self._writer.can_write_eof():  # TLS cannot: there closing is all there is to say
            self._writer.write_eof()

    def _unanswered(self, error: RequestError) -> bytes:
        waits = self._requests.understood > self._responses.complete
        if not waits or self._responses.blind or self._responses.within:
            return b""
        return error_response(error, LAST)
