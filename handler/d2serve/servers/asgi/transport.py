"""Transports that close without losing the last response."""

import asyncio
from collections.abc import Callable
from typing import Any


class LingeringTransport(asyncio.Transport):
    """Closes only after the client has had time to read the response.

    A connection that is closed while the client still sends is reset by the system, and the client
    may lose a response that it has not read yet.

    Args:
        transport: the connection.
        linger_s: time in seconds for which a closed connection still reads.
        must_linger: returns whether the client may still send.
        loop: the event loop.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        linger_s: float,
        must_linger: Callable[[], bool],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__()
        self._transport = transport
        self._linger_s, self._must_linger = linger_s, must_linger
        self._loop = loop
        self._is_closing = False

    def close(self) -> None:
        """Stop sending; close when the client cannot send any more, or after `linger_s`."""
        if self._is_closing:
            return
        self._is_closing = True
        if not self._must_linger():
            self._transport.close()
            return
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():  # not with TLS, which can only close
            self._transport.write_eof()
        self._transport.resume_reading()
        self._loop.call_later(self._linger_s, self._transport.close)

    def is_closing(self) -> bool:
        """True if the connection is closed or about to close."""
        return self._is_closing or self._transport.is_closing()

    def abort(self) -> None:
        """Close at once."""
        self._is_closing = True
        self._transport.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Information about the connection, such as its socket."""
        return self._transport.get_extra_info(name, default)

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        """Send bytes, or buffer them."""
        if data and not self.is_closing():
            self._transport.write(data)

    def get_write_buffer_size(self) -> int:
        """Number of bytes that the client has not read yet, apart from the system's buffers."""
        return unsent_bytes(self._transport)

    def pause_reading(self) -> None:
        """Read no more bytes."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read bytes again."""
        self._transport.resume_reading()


def unsent_bytes(transport: asyncio.BaseTransport) -> int:
    """Number of bytes that are buffered because the other side does not read.

    A TLS transport passes all bytes on to the transport of its socket, whose buffer counts.
    """
    underlying = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    transports = [transport] if underlying is None else [transport, underlying]
    return sum(_buffer_size(each) for each in transports)


def _buffer_size(transport: Any) -> int:
    try:
        size: int = transport.get_write_buffer_size()
    except AttributeError:  # Python 3.10, after a TLS connection was lost
        return 0
    return size
