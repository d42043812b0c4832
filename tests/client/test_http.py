import asyncio
import gzip
import math
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from d2serve.client import http
from d2serve.client.http import AsyncHttpTransport, HttpTransport
from d2serve.client.sender import ATTEMPTS, Sender
from d2serve.client.transport import Payload
from d2serve.errors import CommandError, PredictionError, UnreachableError

URL = "http://server.test/invocations"
OPTIONS_HEADER = "X-Amzn-SageMaker-Custom-Attributes"
ERROR_BODY = {"error": {"code": "bad_request", "message": "empty body", "hint": "send a image"}}


def client_of(server: Callable[[httpx.Request], httpx.Response]) -> Sender:
    transport = HttpTransport(URL, transport=httpx.MockTransport(server))
    return Sender(transport, sleep=lambda _: None)


def test_file_is_sent_with_its_type(tmp_path: Path) -> None:
    image = tmp_path / "a.PNG"
    image.write_bytes(b"bytes")
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"labels": []})

    with client_of(answer) as client:
        reply = client.predict(image, accept="image/jpeg")
    assert reply.json() == {"labels": []}
    assert reply.content_type == "application/json"
    [request] = seen
    assert (request.method, str(request.url), request.content) == ("POST", URL, b"bytes")
    assert request.headers["content-type"] == "image/png"
    assert request.headers["accept"] == "image/jpeg"
    assert OPTIONS_HEADER not in request.headers


def test_options_are_sent_as_custom_attributes() -> None:
    with client_of(lambda request: httpx.Response(200, text=request.headers[OPTIONS_HEADER])) as c:
        assert c.predict(b"", masks="none", classes=[1]).json() == {"masks": "none", "classes": [1]}


@pytest.mark.parametrize(
    ("declared", "sent"), [(None, "application/octet-stream"), ("image/webp", "image/webp")]
)
def test_bytes_are_sent_as_declared(declared: str | None, sent: str) -> None:
    with client_of(lambda request: httpx.Response(200, text=request.headers["content-type"])) as c:
        payload = Payload(b"bytes", content_type=declared) if declared else Payload(b"bytes")
        assert c.send(payload).content.decode() == sent


@pytest.mark.parametrize("status", [429, 503])
def test_overloaded_server_is_retried(status: int) -> None:
    responses = iter(
        [httpx.Response(status), httpx.Response(status), httpx.Response(200, text="now")]
    )
    with client_of(lambda _: next(responses)) as client:
        assert client.predict(b"").content == b"now"


def test_starting_server_is_retried() -> None:
    up = iter([False, False, True])

    def answer(_: httpx.Request) -> httpx.Response:
        if not next(up):
            raise httpx.ConnectError("raised")
        return httpx.Response(200, text="now")

    with client_of(answer) as client:
        assert client.predict(b"").content == b"now"


def test_missing_server() -> None:
    calls: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        raise httpx.ConnectError("raised")

    with client_of(answer) as client, pytest.raises(UnreachableError, match="d2serve serve"):
        client.predict(b"")
    assert len(calls) == ATTEMPTS


def test_error_is_not_retried_and_keeps_its_message() -> None:
    responses = iter([httpx.Response(400, json=ERROR_BODY)])
    with (
        client_of(lambda _: next(responses)) as client,
        pytest.raises(PredictionError, match="empty body") as raised,
    ):
        client.predict(b"")
    error = raised.value
    assert (error.status, error.code, error.hint) == (400, "bad_request", "send a image")


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (httpx.Response(500), "http_500: Internal Server Error"),
        (httpx.Response(301, headers={"location": "https://a"}), "http_301: Moved Permanently"),
        (httpx.Response(502, text="<html>bad gateway"), "http_502: <html>bad gateway"),
        (httpx.Response(404, json={"code": 404, "message": "no model"}), "http_404: no model"),
        (httpx.Response(400, json=["odd"]), 'http_400: ["odd"]'),
        (httpx.Response(400, json={"error": "odd"}), 'http_400: {"error":"odd"}'),
    ],
)
def test_errors_of_gateways(response: httpx.Response, message: str) -> None:
    with client_of(lambda _: response) as client, pytest.raises(PredictionError) as raised:
        client.predict(b"")
    assert str(raised.value) == message


def test_deeply_nested_error_is_quoted() -> None:
    with (
        client_of(lambda _: httpx.Response(400, text="[" * 100_000)) as client,
        pytest.raises(PredictionError, match=r"http_400: \[\[\["),
    ):
        client.predict(b"")


def test_long_page_is_truncated() -> None:
    page = f"  <html>{'x' * 1000}"
    with (
        client_of(lambda _: httpx.Response(502, text=page)) as client,
        pytest.raises(PredictionError) as raised,
    ):
        client.predict(b"")
    assert raised.value.message == page.strip()[:200]


def test_broken_connection() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("too slow")

    with client_of(answer) as client, pytest.raises(PredictionError, match="too slow") as broken:
        client.predict(b"")
    assert (broken.value.status, broken.value.code) == (0, "no_answer")


def test_damaged_compression() -> None:
    response = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Stream())
    with client_of(lambda _: response) as client, pytest.raises(PredictionError) as broken:
        client.predict(b"")
    assert broken.value.code == "no_answer"


def test_response_that_does_not_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read alone is in time."""

    class Slow(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            monkeypatch.setattr("d2serve.client.http.time.monotonic", lambda: math.inf)
            yield b"x"

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Slow()))
    with (
        Sender(HttpTransport(URL, timeout_s=7, transport=transport)) as client,
        pytest.raises(PredictionError, match="has not ended within 7 s") as raised,
    ):
        client.predict(b"")
    assert raised.value.code == "no_answer"


def test_response_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_RESPONSE_BYTES", 1 << 20)
    headers = {"content-encoding": "gzip"}

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=headers, content=gzip.compress(bytes(2 << 20)))

    with (
        client_of(answer) as client,
        pytest.raises(PredictionError, match="the response has more than 1048576 bytes"),
    ):
        client.predict(b"")
    transport = AsyncHttpTransport(URL, transport=httpx.MockTransport(answer))
    with pytest.raises(PredictionError, match="the response has more than 1048576 bytes"):
        asyncio.run(transport.send(Payload(b"")))


class Stream(httpx.SyncByteStream):
    """A body that is not compressed."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"bytes"


def test_unexpected_error_is_not_retried() -> None:
    errors = iter([ValueError("unexpected")])

    def answer(_: httpx.Request) -> httpx.Response:
        raise next(errors)

    with client_of(answer) as client, pytest.raises(ValueError, match="unexpected"):
        client.predict(b"")


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://host/x", "http://", "http://a:b"])
def test_invalid_url(url: str) -> None:
    with pytest.raises(CommandError, match="expected one such as http://"):
        HttpTransport(url)


def test_https_url_is_accepted() -> None:
    with Sender(HttpTransport("https://server.test/invocations")):
        pass


def test_token_is_sent_and_not_part_of_errors() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(400, text="no")

    transport = HttpTransport(URL, token="s3cret", transport=httpx.MockTransport(answer))
    with Sender(transport) as client, pytest.raises(PredictionError) as raised:
        client.predict(b"")
    assert [request.headers["authorization"] for request in seen] == ["Bearer s3cret"]
    assert "s3cret" not in str(raised.value)


def test_no_token_no_header() -> None:
    with client_of(lambda request: httpx.Response(200, json=list(request.headers))) as client:
        assert "authorization" not in client.predict(b"").json()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_file_without_certificates(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / "ca.pem").write_text(content)
    with pytest.raises(CommandError, match=r"ca\.pem contains no certificate"):
        HttpTransport("https://server.test/", ca=tmp_path / "ca.pem")


class Recording(httpx.MockTransport):
    """Returns the read timeout, and records whether it is closed."""

    closed = False

    def __init__(self) -> None:
        super().__init__(
            lambda request: httpx.Response(200, json=request.extensions["timeout"]["read"])
        )

    def close(self) -> None:
        self.closed = True


def test_timeout_applies_and_connections_are_closed() -> None:
    connections = Recording()
    with Sender(HttpTransport(URL, timeout_s=7, transport=connections)) as client:
        assert client.predict(b"").json() == 7
        assert not connections.closed
    assert connections.closed


class Proxy(BaseHTTPRequestHandler):
    """Returns the request's target: a URL from clients of a proxy, else a path."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_: object) -> None:
        """Keep the tests' output short."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The proxy of the environment, which also serves /invocations."""
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("http_proxy", url)
        Thread(target=server.serve_forever, daemon=True).start()
        yield url
        server.shutdown()


def test_proxy_is_used_for_other_machines_only(proxy: str) -> None:
    for url, target in {URL: URL, f"{proxy}/invocations": "/invocations"}.items():
        with Sender(HttpTransport(url)) as client:
            assert client.predict(b"").content.decode() == target


@pytest.mark.parametrize("url", ["http://server.test", "http://server.test/"])
def test_address_without_a_path_is_that_of_invocations(url: str) -> None:
    assert HttpTransport(url).url == URL


@pytest.mark.parametrize("token", ["secret\n", "a\nsecret", "sécret"])
def test_token_that_no_header_can_contain_is_not_printed(token: str) -> None:
    with pytest.raises(CommandError, match="the token contains a line break") as raised:
        HttpTransport(URL, token=token)
    assert token.strip() not in str(raised.value)
