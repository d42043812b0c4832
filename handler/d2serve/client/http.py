"""A server reached by URL."""

import ssl
from pathlib import Path

import httpx

from d2serve.client.transport import Payload, PredictionError, Reply, UnreachableError, refusal
from d2serve.errors import CommandError
from d2serve.servers.torchserve.launcher.network import authorization

DEFAULT_URL = "http://127.0.0.1:8080/invocations"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


class HttpTransport:
    """Posts to one URL.

    Args:
        url: where.
        timeout_s: how long an answer may take.
        token: what a server that asks for one wants to see; never told in an error.
        ca: a PEM file of certificates to trust, in place of the system's.
        transport: in place of the network.

    Raises:
        CommandError: the URL is none, or the file holds no certificate.
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
        self.url = url
        self._http = httpx.Client(
            timeout=timeout_s,
            headers=authorization(token),
            verify=_trusting(ca) if ca else True,
            transport=transport,
            # A proxy cannot reach our loopback.
            trust_env=_host_of(url) not in LOOPBACK_HOSTS,
        )

    def send(self, payload: Payload) -> Reply:
        """See Transport."""
        headers = {"Content-Type": payload.content_type, "Accept": payload.accept}
        if payload.options:
            headers[CUSTOM_ATTRIBUTES] = payload.custom_attributes
        try:
            response = self._http.post(self.url, content=payload.body, headers=headers)
        except httpx.ConnectError as error:
            if _is_about_trust(error):
                raise PredictionError(
                    0, "not_trusted", f"{self.url}: {error}", "CA= names the certificate to trust"
                ) from error
            raise UnreachableError(
                f"no server answers at {self.url}; start one with `make serve`, or give another URL"
            ) from error
        except httpx.TransportError as error:
            raise PredictionError(0, "no_answer", f"{self.url}: {error!r}") from error
        # A redirect is none of the API's answers either.
        if not response.is_success:
            raise refusal(response.status_code, response.text, response.reason_phrase)
        return Reply(response.content, response.headers.get("content-type", ""))

    def close(self) -> None:
        """See Transport."""
        self._http.close()


def _trusting(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl's own errors are some, too
        raise CommandError(f"{ca} holds no certificate to trust: {error}") from error


def _is_about_trust(error: BaseException | None) -> bool:
    while error and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None


def _host_of(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise CommandError(
            f"{url!r} is not a URL ({error}); one looks like {DEFAULT_URL}"
        ) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise CommandError(f"{url!r} is not an HTTP URL; one looks like {DEFAULT_URL}")
    return parsed.host
