"""A thin HTTP client of the server, for the commands and the tests."""

import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import httpx
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from scripts.errors import CommandError
from scripts.pictures import ANY_BYTES, content_type_of

DEFAULT_URL = "http://127.0.0.1:8080/invocations"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
COME_BACK_LATER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
ATTEMPTS = 6


class UnreachableError(CommandError):
    """Nothing listens at the URL."""


class PredictionError(CommandError):
    """The server refused a request, or broke off; `status` is 0 if it gave no answer."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(f"{code}: {message}" + (f" ({hint})" if hint else ""))
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint


class Client:
    """Sends pictures to one URL, and tries again when the server is busy or not up yet."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 120,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url
        self._http = httpx.Client(
            timeout=timeout_s,
            transport=transport,
            # A proxy cannot reach our loopback.
            trust_env=_host_of(url) not in LOOPBACK_HOSTS,
        )
        self._retrying = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            retry=retry_if_exception(_may_pass),
            sleep=sleep,
            reraise=True,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def predict(
        self,
        picture: Path | bytes,
        *,
        accept: str = "application/json",
        content_type: str | None = None,
    ) -> httpx.Response:
        """Return the server's answer to one picture, given as a file or as its bytes.

        Raises PredictionError if the server refuses it and UnreachableError if there is no server.
        """
        if isinstance(picture, Path):
            content_type = content_type or content_type_of(picture)
            picture = picture.read_bytes()
        headers = {"Content-Type": content_type or ANY_BYTES, "Accept": accept}
        return self._retrying(self._post, picture, headers)

    def _post(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        try:
            response = self._http.post(self.url, content=body, headers=headers)
        except httpx.ConnectError as error:
            raise UnreachableError(
                f"no server answers at {self.url}; start one with `make serve`, or give another URL"
            ) from error
        except httpx.TransportError as error:
            raise PredictionError(0, "no_answer", f"{self.url}: {error!r}") from error
        if response.is_error:
            raise _refusal(response)
        return response


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


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, PredictionError):
        return error.status in COME_BACK_LATER
    return isinstance(error, UnreachableError)


def _refusal(response: httpx.Response) -> PredictionError:
    """Read the contract's error body, or what a server in front of the handler says instead."""
    try:
        content = response.json()
    except ValueError:
        content = None
    fields = content if isinstance(content, dict) else {}
    error = fields.get("error")
    if isinstance(error, dict):
        fields = error
    code = fields.get("code") if fields is error else f"http_{response.status_code}"
    message = fields.get("message") or response.text.strip()[:200] or response.reason_phrase
    return PredictionError(
        response.status_code, str(code), str(message), str(fields.get("hint") or "")
    )
