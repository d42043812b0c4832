from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from d2serve.client.client import ATTEMPTS, Client
from d2serve.client.http import HttpTransport
from d2serve.client.transport import Payload, PredictionError, UnreachableError
from d2serve.errors import CommandError

URL = "http://server.test/invocations"
OPTIONS_HEADER = "X-Amzn-SageMaker-Custom-Attributes"
REFUSAL = {"error": {"code": "bad_request", "message": "empty body", "hint": "send a picture"}}


def client_of(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    transport = HttpTransport(URL, transport=httpx.MockTransport(answer))
    return Client(transport, sleep=lambda _: None)


def test_a_file_is_sent_with_its_type(tmp_path: Path) -> None:
    picture = tmp_path / "a.PNG"
    picture.write_bytes(b"bytes")
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"labels": []})

    with client_of(answer) as client:
        reply = client.predict(picture, accept="image/jpeg")
    assert reply.json() == {"labels": []}
    assert reply.content_type == "application/json"
    [request] = seen
    assert (request.method, str(request.url), request.content) == ("POST", URL, b"bytes")
    assert request.headers["content-type"] == "image/png"
    assert request.headers["accept"] == "image/jpeg"
    assert OPTIONS_HEADER not in request.headers


def test_options_are_sent_as_sagemaker_would_hand_them_on() -> None:
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
def test_a_busy_server_is_asked_again(status: int) -> None:
    answers = iter(
        [httpx.Response(status), httpx.Response(status), httpx.Response(200, text="now")]
    )
    with client_of(lambda _: next(answers)) as client:
        assert client.predict(b"").content == b"now"


def test_a_server_that_is_not_up_yet_is_asked_again() -> None:
    up = iter([False, False, True])

    def answer(_: httpx.Request) -> httpx.Response:
        if not next(up):
            raise httpx.ConnectError("refused")
        return httpx.Response(200, text="now")

    with client_of(answer) as client:
        assert client.predict(b"").content == b"now"


def test_a_server_that_is_not_there_is_given_up() -> None:
    calls: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        raise httpx.ConnectError("refused")

    with client_of(answer) as client, pytest.raises(UnreachableError, match="make serve"):
        client.predict(b"")
    assert len(calls) == ATTEMPTS


def test_a_refusal_is_not_repeated_and_keeps_its_words() -> None:
    answers = iter([httpx.Response(400, json=REFUSAL)])
    with (
        client_of(lambda _: next(answers)) as client,
        pytest.raises(PredictionError, match="empty body") as refused,
    ):
        client.predict(b"")
    error = refused.value
    assert (error.status, error.code, error.hint) == (400, "bad_request", "send a picture")


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
def test_others_errors_are_shown_too(response: httpx.Response, message: str) -> None:
    with client_of(lambda _: response) as client, pytest.raises(PredictionError) as refused:
        client.predict(b"")
    assert str(refused.value) == message


def test_a_long_page_is_quoted_in_part() -> None:
    page = f"  <html>{'x' * 1000}"
    with (
        client_of(lambda _: httpx.Response(502, text=page)) as client,
        pytest.raises(PredictionError) as refused,
    ):
        client.predict(b"")
    assert refused.value.message == page.strip()[:200]


def test_a_broken_connection_is_a_failed_prediction() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("too slow")

    with client_of(answer) as client, pytest.raises(PredictionError, match="too slow") as broken:
        client.predict(b"")
    assert (broken.value.status, broken.value.code) == (0, "no_answer")


def test_a_fault_of_our_own_is_not_repeated() -> None:
    faults = iter([ValueError("a fault")])

    def answer(_: httpx.Request) -> httpx.Response:
        raise next(faults)

    with client_of(answer) as client, pytest.raises(ValueError, match="a fault"):
        client.predict(b"")


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://host/x", "http://", "http://a:b"])
def test_a_url_that_is_none_is_named(url: str) -> None:
    with pytest.raises(CommandError, match="one looks like http://"):
        HttpTransport(url)


def test_a_secure_url_is_one() -> None:
    with Client(HttpTransport("https://server.test/invocations")):
        pass


def test_a_token_goes_along_and_is_in_no_error() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(400, text="no")

    transport = HttpTransport(URL, token="s3cret", transport=httpx.MockTransport(answer))
    with Client(transport) as client, pytest.raises(PredictionError) as refused:
        client.predict(b"")
    assert [request.headers["authorization"] for request in seen] == ["Bearer s3cret"]
    assert "s3cret" not in str(refused.value)


def test_without_a_token_there_is_no_header() -> None:
    with client_of(lambda request: httpx.Response(200, json=list(request.headers))) as client:
        assert "authorization" not in client.predict(b"").json()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_without_certificates_is_named(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / "ca.pem").write_text(content)
    with pytest.raises(CommandError, match=r"ca\.pem holds no certificate"):
        HttpTransport("https://server.test/", ca=tmp_path / "ca.pem")


class Recording(httpx.MockTransport):
    """Answers with the seconds that it may take, and knows whether it is closed."""

    closed = False

    def __init__(self) -> None:
        super().__init__(
            lambda request: httpx.Response(200, json=request.extensions["timeout"]["read"])
        )

    def close(self) -> None:
        self.closed = True


def test_connections_wait_as_long_as_told_and_are_given_back() -> None:
    connections = Recording()
    with Client(HttpTransport(URL, timeout_s=7, transport=connections)) as client:
        assert client.predict(b"").json() == 7
        assert not connections.closed
    assert connections.closed


class Proxy(BaseHTTPRequestHandler):
    """Answers with what it is asked for: as a proxy a whole URL, as a server its path."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_: object) -> None:
        """Tests say what went wrong themselves."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The environment's proxy, which serves /invocations too."""
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("http_proxy", url)
        Thread(target=server.serve_forever, daemon=True).start()
        yield url
        server.shutdown()


def test_a_proxy_is_asked_for_other_machines_alone(proxy: str) -> None:
    for url, asked in {URL: URL, f"{proxy}/invocations": "/invocations"}.items():
        with Client(HttpTransport(url)) as client:
            assert client.predict(b"").content.decode() == asked
