"""Transports to a server's URL."""

import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

from d2serve.client.transport import Payload, Reply, error_from_body
from d2serve.client.urls import DEFAULT_URL, host_of, route_url
from d2serve.errors import CommandError, PredictionError, UnreachableError

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
# Of one request's images; the largest results, of polygons of thousands of instances, have less.
MAX_RESPONSE_BYTES = 1 << 30


class HttpTransport:
    """Posts requests to one URL.

    Args:
        url: URL of the route, such as DEFAULT_URL; without a path that of /invocations.
        timeout_s: seconds to wait for a response.
        token: bearer token of a server that requires one; never part of an error message.
        ca: PEM file of certificates to trust instead of the system's.
        transport: httpx transport to use instead of the network.

    Raises:
        CommandError: the URL or the token is invalid, or the file contains no certificate.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 120,
        token: str | None = None,
        ca: Path | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        options = _client_options(url, timeout_s, token, ca)
        self.url, self._timeout_s = route_url(url), timeout_s
        self._http = httpx.Client(transport=transport, **options)

    def send(self, payload: Payload) -> Reply:
        """Send a request; see Transport."""
        request = self._http.build_request(
            "POST", self.url, content=payload.body, headers=_headers(payload)
        )
        body = _ResponseBody(self.url, self._timeout_s)
        with _readable_errors(self.url):
            response = self._http.send(request, stream=True)
            with closing(response):
                for part in response.iter_bytes():
                    body.add(part)
        return _reply(response, bytes(body.content))

    def close(self) -> None:
        """Close all connections."""
        self._http.close()


class AsyncHttpTransport:
    """An `HttpTransport` for coroutines; a cancelled call closes its connection.

    Args:
        url, timeout_s, token, ca: see HttpTransport.
        transport: httpx transport to use instead of the network.

    Raises:
        CommandError: the URL or the token is invalid, or the file contains no certificate.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 120,
        token: str | None = None,
        ca: Path | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        options = _client_options(url, timeout_s, token, ca)
        self.url, self._timeout_s = route_url(url), timeout_s
        self._http = httpx.AsyncClient(transport=transport, **options)

    async def send(self, payload: Payload) -> Reply:
        """Send a request; see Transport."""
        request = self._http.build_request(
            "POST", self.url, content=payload.body, headers=_headers(payload)
        )
        body = _ResponseBody(self.url, self._timeout_s)
        with _readable_errors(self.url):
            response = await self._http.send(request, stream=True)
            try:
                async for part in response.aiter_bytes():
                    body.add(part)
            finally:
                await response.aclose()
        return _reply(response, bytes(body.content))

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()


def _client_options(url: str, timeout_s: float, token: str | None, ca: Path | None) -> Any:
    _check_token(token)
    return {
        "timeout": timeout_s,
        "headers": {"Authorization": f"Bearer {token}"} if token else {},
        # A proxy server cannot reach this machine's loopback.
        "trust_env": host_of(url) not in LOOPBACK_HOSTS,
        "verify": _tls_context(ca) if ca else True,
        # A client's `concurrency` limits them.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None),
    }


def _headers(payload: Payload) -> dict[str, str]:
    headers = {"Content-Type": payload.content_type, "Accept": payload.accept}
    if payload.options:
        headers[CUSTOM_ATTRIBUTES] = payload.custom_attributes
    return headers


@contextmanager
def _readable_errors(url: str) -> Iterator[None]:
    """Convert httpx's errors of a request to the URL."""
    try:
        yield
    except httpx.ConnectError as error:
        raise _connection_error(url, error) from error
    except httpx.RequestError as error:
        raise PredictionError(0, "no_answer", f"{url}: {error!r}") from error


def _connection_error(url: str, error: httpx.ConnectError) -> CommandError:
    if _is_tls_error(error):
        hint = "pass the certificate to trust as `ca`, or with --ca"
        return PredictionError(0, "not_trusted", f"{url}: {error}", hint)
    return UnreachableError(
        f"cannot connect to {url}; start a server with `d2serve serve`, or use another URL"
    )


class _ResponseBody:
    """A response's body while it arrives, uncompressed.

    Args:
        url: the URL, for error messages.
        timeout_s: seconds within which it must arrive; httpx itself limits each read alone.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url, self.timeout_s = url, timeout_s
        self.started = time.monotonic()
        self.content = bytearray()

    def add(self, part: bytes) -> None:
        """Append a part.

        Raises:
            PredictionError: the body is too large, as a few compressed kilobytes can be, or too
                slow.
        """
        if time.monotonic() - self.started > self.timeout_s:
            message = f"{self.url}: the response has not ended within {self.timeout_s:g} s"
            raise PredictionError(0, "no_answer", message)
        if len(self.content) + len(part) > MAX_RESPONSE_BYTES:
            raise PredictionError(
                0,
                "too_large",
                f"{self.url}: the response has more than {MAX_RESPONSE_BYTES} bytes",
                "send fewer images per request, or request no masks",
            )
        self.content += part


def _reply(response: httpx.Response, content: bytes) -> Reply:
    """The body of a successful response; the API sends no redirects."""
    if response.is_success:
        timing = response.headers.get("server-timing", "")
        return Reply(content, response.headers.get("content-type", ""), timing)
    # The other form of Retry-After, a date, is not used by d2serve.
    seconds = response.headers.get("retry-after", "")
    raise error_from_body(
        response.status_code,
        content.decode(errors="replace"),
        response.reason_phrase,
        retry_after_s=float(seconds) if seconds.isdecimal() else 0.0,
    )


def _check_token(token: str | None) -> None:
    # The message must not contain the token.
    if token and not (token.isascii() and token.isprintable()):
        raise CommandError(
            "the token contains a line break or other characters that HTTP headers cannot contain; "
            "set D2SERVE_TOKEN to the token alone"
        )


def _tls_context(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is a subclass
        raise CommandError(f"{ca} contains no certificate to trust: {error}") from error


def _is_tls_error(error: BaseException | None) -> bool:
    while error and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None
