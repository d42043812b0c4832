"""One client's connection through the front door to TorchServe and back."""

import asyncio
import socket
from contextlib import closing, suppress

from handler.errors import RequestError, internal
from handler.lifecycle.dialogue import LAST, Dialogue
from handler.lifecycle.house import House
from handler.lifecycle.own_answers import not_ready
from handler.lifecycle.responses import error_response
from handler.lifecycle.streams import CHUNK_BYTES, discard, linger, open_streams, untaken_bytes
from handler.lifecycle.upstream import Upstream


class Connection:
    """Passes bytes both ways between a client and TorchServe.

    TorchServe hears of a client when its first request's head is there.

    Args:
        client: the accepted connection.
        house: where it came in.

    Attributes:
        dialogue: what has been said on it.
    """

    def __init__(self, client: socket.socket, house: House) -> None:
        self._client = client
        self._house = house
        self._writer: asyncio.StreamWriter | None = None
        self._number = house.departures.next_number()
        self.dialogue = Dialogue(self._number, house.is_ready, house.limits, self._untaken)

    async def run(self) -> None:
        """Until one side has gone; a request that TorchServe leaves unanswered gets an error.

        When the task is cancelled, a request that waits is told why: its client stalls, or no
        worker is ready. Cancelled once more, the client's end is not waited for.
        """
        # A side that is gone ends the connection, and closing tells the other side.
        with suppress(OSError), closing(self._client):
            reader, writer = await open_streams(self._client, self._house.tls)
            self._writer = writer
            try:
                await self._converse(reader, writer)
            except RequestError as refusal:
                self._end(writer, error_response(refusal, LAST))
                await linger(asyncio.create_task(discard(reader)))
            except asyncio.CancelledError:
                self._end(writer, self.dialogue.last_words(not_ready()))
            finally:
                self._house.departures.add(self._number)
                await self._close(writer)

    def _untaken(self) -> int:
        return untaken_bytes(self._writer) if self._writer else 0

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes on what both sides say.

        Raises:
            RequestError: the first request cannot be passed on.
        """
        opening = await self._opening(reader)
        if not opening:
            return
        try:
            server = await Upstream.connected(*self._house.upstream)
        except OSError:
            raise not_ready() from None
        with closing(server):
            upload = asyncio.create_task(self._upload(opening, reader, server))
            try:
                await self._download(server, writer)
                self._end(writer, self.dialogue.last_words(internal()))
                await linger(upload)
            finally:
                upload.cancel()
                # Its socket is closed next.
                await asyncio.wait({upload})

    async def _opening(self, reader: asyncio.StreamReader) -> bytes:
        """What goes on first; nothing where the client goes before its first head is there."""
        while chunk := await reader.read(CHUNK_BYTES):
            if passed := self._take(chunk):
                return passed
        return b""

    async def _upload(self, opening: bytes, reader: asyncio.StreamReader, server: Upstream) -> None:
        """Until the client has gone. One that closes its own side alone counts as gone: TorchServe
        does not answer it either."""
        try:
            await server.send(opening)
            while chunk := await reader.read(CHUNK_BYTES):
                await self._pass_on(chunk, server)
        except OSError:
            server.shut()
        else:
            server.end()
        self._house.departures.add(self._number)

    async def _pass_on(self, chunk: bytes, server: Upstream) -> None:
        try:
            passed = self._take(chunk)
        except RequestError as refusal:
            self.dialogue.error = refusal
            server.shut()
        else:
            await server.send(passed)

    def _take(self, chunk: bytes) -> bytes:
        """What goes on to TorchServe of what the client has sent.

        Raises:
            RequestError: it begins a request, and there is no room for one more.
        """
        was_busy = self.dialogue.is_busy
        passed = self.dialogue.to_server(chunk)
        if self.dialogue.is_busy and not was_busy:
            self._house.check_room(self.dialogue.first_line)
        return passed

    async def _download(self, server: Upstream, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while not self.dialogue.is_over and (chunk := await server.read()):
                writer.write(self.dialogue.to_client(chunk))
                await writer.drain()

    def _end(self, writer: asyncio.StreamWriter, words: bytes) -> None:
        if self.dialogue.ended:
            return
        self.dialogue.ended = True
        writer.write(words)
        if writer.can_write_eof():  # TLS cannot: there closing is all there is to say
            writer.write_eof()

    async def _close(self, writer: asyncio.StreamWriter) -> None:
        self.dialogue.ended = True
        writer.close()
        try:
            await writer.wait_closed()  # its client may be slow to take its answer
        except asyncio.CancelledError:
            writer.transport.abort()
