"""Rejections by the head of a request are those of the application, and only for full queues."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import h11
import pytest

from d2serve.errors import RequestError
from d2serve.servers.asgi.app import create_app
from d2serve.servers.asgi.body import MAX_DROPPED_BYTES
from d2serve.servers.asgi.frame import Access
from d2serve.servers.asgi.models import Models, State
from d2serve.servers.asgi.rejection import Rejection, predictions_of
from tests.servers.asgi.fakes import FakePipeline, send
from tests.servers.asgi.running import RunningServer, read_all, running

TARGETS = [
    "/invocations",
    "/models/shapes/invoke",
    "/predictions/shapes",
    "/predictions/shapes/1.0",
    "/v1/models/shapes:predict",
    "/v2/models/shapes/infer",
    "/v2/models/shapes/versions/1/infer",
    "/predictions/other%20name",
]
HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\n"
ID = "order-42"


class Rejecting:
    """An application and the rejection beside it, both with the same full models."""

    def __init__(self, token: str = "") -> None:
        self.full, self.other = FakePipeline(is_full=True), FakePipeline(is_full=True)
        self.models = Models.ready({"shapes": self.full, "other name": self.other})
        self.access = Access(token)
        self.app = create_app(self.models, access=self.access)
        self.errors: list[RequestError] = []
        targets = predictions_of(self.models.names, self.app)
        self.reject = Rejection(self.models, self.access, targets, self.errors.append)

    def request(self, target: str = "/invocations", **changes: Any) -> h11.Request:
        values: dict[str, Any] = {"method": "POST", "http_version": b"1.1", **changes}
        headers = {"host": "server", "x-request-id": ID, **values.pop("headers", {})}
        return h11.Request(target=target, headers=list(headers.items()), **values)


@pytest.fixture
def rejecting() -> Rejecting:
    return Rejecting()


@pytest.mark.parametrize("target", TARGETS)
def test_the_response_is_that_of_the_application(
    rejecting: Rejecting, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    headers = {"content-type": "image/jpeg", "content-length": "5"}
    events = rejecting.reject(rejecting.request(target, headers=headers))
    assert events is not None
    response, data, end = events
    expected = send(
        rejecting.app,
        "POST",
        target,
        content=b"12345",
        headers={"x-request-id": ID, "content-type": "image/jpeg"},
    )
    assert isinstance(response, h11.Response)
    assert isinstance(data, h11.Data)
    assert isinstance(end, h11.EndOfMessage)
    assert response.status_code == expected.status_code == 503
    assert {name.decode(): value.decode() for name, value in response.headers} == dict(
        expected.headers
    )
    assert data.data == expected.content
    assert [error.status for error in rejecting.errors] == [503]
    ours, theirs = (json.loads(record.message) for record in caplog.records if "{" in record.msg)
    del ours["time"], theirs["time"]
    assert ours == {**theirs, "rejected": 1}


def test_one_line_a_second_is_logged(
    rejecting: Rejecting, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    for now in (10.0, 10.1, 10.9, 11.0, 11.1, 12.5):
        monkeypatch.setattr("d2serve.servers.asgi.responses.time.monotonic", lambda now=now: now)
        assert rejecting.reject(rejecting.request())
    logged = [json.loads(record.message)["rejected"] for record in caplog.records]
    assert logged == [1, 3, 2]
    assert len(rejecting.errors) == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "PUT"},
        {"method": "GET"},
        {"http_version": b"1.0"},
        {"target": "/invocations?max_detections=1"},
        {"target": "/predictions/unknown"},
        {"target": "/ping"},
        {"headers": {"origin": "https://example.org"}},
        {"headers": {"connection": "close"}},
        {"headers": {"transfer-encoding": "chunked"}},
        {"headers": {"expect": "100-continue", "content-length": "5"}},
        {"headers": {"content-length": str(MAX_DROPPED_BYTES + 1)}},
    ],
    ids=str,
)
def test_the_application_decides_on_unusual_requests(
    rejecting: Rejecting, changes: dict[str, Any]
) -> None:
    assert rejecting.reject(rejecting.request(**changes)) is None
    assert rejecting.errors == []


def test_a_queue_with_room_rejects_nothing(rejecting: Rejecting) -> None:
    rejecting.full.is_full = False
    assert rejecting.reject(rejecting.request()) is None
    assert rejecting.reject(rejecting.request("/predictions/other%20name")) is not None


def test_a_stopping_server_rejects_by_the_application(rejecting: Rejecting) -> None:
    rejecting.models.state = State.STOPPING
    assert rejecting.reject(rejecting.request()) is None


@pytest.mark.parametrize(
    ("authorization", "is_rejected"), [("", False), ("Bearer wrong", False), ("Bearer key", True)]
)
def test_the_token_is_checked_first(authorization: str, is_rejected: bool) -> None:
    rejecting = Rejecting("key")
    request = rejecting.request(headers={"authorization": authorization})
    assert (rejecting.reject(request) is not None) is is_rejected


@pytest.fixture
def server(rejecting: Rejecting) -> Iterator[RunningServer]:
    with running(rejecting.app, reject=rejecting.reject) as served:
        yield served


def test_rejected_bodies_are_dropped(rejecting: Rejecting, server: RunningServer) -> None:
    """Pipelined, in pieces and at once; the connection serves a request afterwards."""
    body = bytes(range(256)) * 1000
    framed = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with server.connect() as connection:
        for _ in range(3):
            connection.sendall(framed[:100])
            assert connection.recv(4096).startswith(b"HTTP/1.1 503 ")
            connection.sendall(framed[100:])
        connection.sendall(framed * 3 + HEAD + b"Content-Length: 0\r\n\r\n")
        received = bytearray()
        while received.count(b"HTTP/1.1 503 ") < 4:
            received += connection.recv(1 << 16)
        rejecting.full.is_full = False
        connection.sendall(HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok")
        last = read_all(connection)
    assert last.startswith(b"HTTP/1.1 200 ")
    assert b'"ok"' in last
    assert len(rejecting.full.requests) == 1
    assert len(rejecting.errors) == 7


def test_a_rejected_request_with_a_malformed_one_behind_it(server: RunningServer) -> None:
    received = server.exchange(HEAD + b"Content-Length: 2\r\n\r\nok" + b"\x00 no HTTP\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 503 ")
    assert b"HTTP/1.1 400 " in received
