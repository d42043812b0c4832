"""A client of a server: one kept connection, and no request sent twice."""

import asyncio
import ssl
from contextlib import suppress
from typing import Any

import httpcore
import httpx

from bench.http import raw
from bench.http.messages import KEPT, Reply, Request, is_whole

REQUEST_ID = "x-request-id"
CHUNK_BYTES = 1 << 16


class Client:
    """Sends one request at a time; proxies that the environment names are not used.

    Args:
        url: of a route that accepts POST.
        timeout_s: for a whole exchange; a request without a response by then has failed.
        context: shared by all clients, because it takes long to create.
    """

    def __init__(self, url: str, timeout_s: float, context: ssl.SSLContext | None = None) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            verify=context or httpx.create_ssl_context(),
            timeout=None,  # noqa: S113
            trust_env=False,
            # Compressed responses would cost the generator time.
            headers={"Accept-Encoding": "identity"},
            limits=httpx.Limits(max_connections=1, keepalive_expiry=None),
        )
        self._stream: Any = None

    async def send(self, request: Request, body: bytes) -> Reply:
        """Send a request as its behaviour says; a connection that fails is an empty Reply."""
        if request.behaviour == KEPT:
            exchange = self._exchange(request, body)
        else:
            exchange = raw.exchange(self._url, request, body)
        try:
            return await asyncio.wait_for(exchange, self._timeout_s)
        except (asyncio.TimeoutError, OSError, httpx.TransportError):
            return Reply()

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def _exchange(self, request: Request, body: bytes) -> Reply:
        surplus = await self._read_surplus()
        received = bytearray()
        complete = False
        try:
            async with self._http.stream(
                "POST", self._url, content=body, headers=dict(request.headers)
            ) as response:
                self._stream = response.extensions.get("network_stream")
                with suppress(httpx.TransportError):
                    async for chunk in response.aiter_raw():
                        received += chunk
                    complete = True
        except httpx.TransportError:
            return Reply(surplus=surplus)
        content = bytes(received)
        return Reply(
            status=response.status_code,
            body=content,
            whole=complete and is_whole(content),
            request_id=response.headers.get(REQUEST_ID, ""),
            surplus=surplus,
        )

    async def _read_surplus(self) -> int:
        """Count the bytes that arrived after the last response; then the connection is closed.

        Of a second response that arrives together with the first, httpx returns the bytes as the
        response to the next request, which the ids and the bodies show.
        """
        if self._stream is None or not self._stream.get_extra_info("is_readable"):
            return 0
        found = b""
        with suppress(httpcore.NetworkError, httpcore.TimeoutException):
            found = await self._stream.read(CHUNK_BYTES, timeout=1.0)
        await self._stream.aclose()
        self._stream = None
        return len(found)
