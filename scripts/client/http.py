"""A server by its URL."""

import httpx

from scripts.client.errors import PredictionError, UnreachableError, refusal
from scripts.client.messages import Payload, Reply
from scripts.errors import CommandError

DEFAULT_URL = "http://127.0.0.1:8080/invocations"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


class HttpTransport:
    """Posts to one URL.

    Raises:
        CommandError: the URL is none.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 120,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url
        self._http = httpx.Client(
            timeout=timeout_s,
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
