"""Transport to a server's URL."""

import ssl
from pathlib import Path

import httpx

from d2serve.client.transport import Payload, Reply, error_from_body
from d2serve.errors import CommandError, PredictionError, UnreachableError

DEFAULT_PATH = "/invocations"
DEFAULT_URL = f"http://127.0.0.1:8080{DEFAULT_PATH}"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


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
        _check_token(token)
        host = _host_of(url)
        # A server's address alone stands for its default route.
        parsed = httpx.URL(url)
        self.url = str(parsed.copy_with(path=DEFAULT_PATH)) if parsed.path == "/" else url
        self._http = httpx.Client(
            timeout=timeout_s,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            verify=_tls_context(ca) if ca else True,
            transport=transport,
            # A proxy server cannot reach this machine's loopback.
            trust_env=host not in LOOPBACK_HOSTS,
        )

    def send(self, payload: Payload) -> Reply:
        """Send a request; see Transport."""
        headers = {"Content-Type": payload.content_type, "Accept": payload.accept}
        if payload.options:
            headers[CUSTOM_ATTRIBUTES] = payload.custom_attributes
        try:
            response = self._http.post(self.url, content=payload.body, headers=headers)
        except httpx.ConnectError as error:
            raise self._connection_error(error) from error
        except httpx.TransportError as error:
            raise PredictionError(0, "no_answer", f"{self.url}: {error!r}") from error
        # The API sends no redirects.
        if not response.is_success:
            raise error_from_body(response.status_code, response.text, response.reason_phrase)
        return Reply(response.content, response.headers.get("content-type", ""))

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _connection_error(self, error: httpx.ConnectError) -> CommandError:
        if _is_tls_error(error):
            hint = "pass the certificate to trust as `ca`, or with --ca"
            return PredictionError(0, "not_trusted", f"{self.url}: {error}", hint)
        return UnreachableError(
            f"cannot connect to {self.url}; start a server with `d2serve serve`, or use another URL"
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


def _host_of(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise CommandError(
            f"{url!r} is not a URL ({error}); expected one such as {DEFAULT_URL}"
        ) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise CommandError(f"{url!r} is not an HTTP URL; expected one such as {DEFAULT_URL}")
    return parsed.host
