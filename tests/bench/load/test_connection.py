"""The client that sends nothing twice, against a server that answers as it is told."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from bench.load import connection
from bench.load.answers import NO_ANSWER, Reply
from bench.load.connection import Connection
from bench.load.requests import (
    CLOSED,
    CRAWLING,
    KEPT,
    LEAVING_EARLY,
    LEAVING_LATE,
    RAW,
    Request,
)
from d2serve.servers.torchserve.launcher.ports import Ports
from tests.bench.load.fake_server import GOOD, FakeServer, running

SECOND = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BODY = b"a picture" * 1000


@contextmanager
def client_of(url: str) -> Iterator[Connection]:
    with closing(Connection(url, 10)) as client:
        yield client


def request(manner: str) -> Request:
    return Request("a", "a.jpg", {"Content-Type": "image/jpeg"}, manner)


@pytest.mark.parametrize("manner", [KEPT, CLOSED])
def test_a_request_gets_its_answer(manner: str) -> None:
    with running(FakeServer()) as fake, client_of(fake.url) as client:
        replies = [client.send(request(manner), BODY) for _ in range(3)]
    assert replies == [Reply(200, GOOD, whole=True)] * 3
    assert fake.bodies == {BODY: 3}
    assert fake.headers[0]["Content-Type"] == "image/jpeg"
    assert fake.connections == (1 if manner == KEPT else 3)


def test_a_second_answer_is_noticed() -> None:
    with running(FakeServer(surplus=SECOND)) as fake, client_of(fake.url) as client:
        alone = client.send(request(CLOSED), BODY)
        kept = [client.send(request(KEPT), BODY) for _ in range(3)]
    assert (alone.status, alone.body, alone.surplus) == (200, GOOD, len(SECOND))
    # It comes with the first answer, or lies there when the next request is sent.
    assert sum(reply.surplus for reply in kept) >= 2 * len(SECOND)
    assert {(reply.status, reply.body) for reply in kept} == {(200, GOOD)}


@pytest.mark.parametrize("manner", [KEPT, CLOSED])
def test_what_gets_no_answer_is_not_sent_again(manner: str) -> None:
    def hang_up(_: int) -> tuple[int, bytes]:
        raise ConnectionError

    with running(FakeServer(hang_up)) as fake, client_of(fake.url) as client:
        replies = [client.send(request(manner), BODY) for _ in range(2)]
    assert replies == [Reply()] * 2
    assert fake.bodies == {BODY: 2}


def test_a_connection_of_which_the_server_said_that_it_ends_is_not_used_again() -> None:
    with running(FakeServer(closes=True)) as fake, client_of(fake.url) as client:
        replies = [client.send(request(KEPT), BODY) for _ in range(3)]
    assert replies == [Reply(200, GOOD, whole=True, last=True)] * 3
    assert fake.connections == 3


@pytest.mark.parametrize("manner", [KEPT, CLOSED])
def test_an_answer_that_breaks_off_is_not_whole(manner: str) -> None:
    with running(FakeServer(declared_extra=9)) as fake, client_of(fake.url) as client:
        reply = client.send(request(manner), BODY)
    assert (reply.status, reply.body, reply.whole) == (200, GOOD, False)


def test_a_server_that_is_gone_is_no_answer() -> None:
    client = Connection(f"http://127.0.0.1:{Ports.free().inference}/", 10)
    for manner in (KEPT, CLOSED, RAW, CRAWLING, LEAVING_EARLY, LEAVING_LATE):
        assert client.send(request(manner), BODY) == Reply(), manner


def test_raw_bytes_are_all_that_is_sent() -> None:
    with running(FakeServer()) as fake, client_of(fake.url) as client:
        reply = client.send(request(RAW), b"nonsense\r\n\r\n")
    assert reply.status != NO_ANSWER or reply.surplus > 0
    assert not fake.headers


def test_leavers_wait_for_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CRAWLING_PAUSE_S", 0)
    with running(FakeServer()) as fake, client_of(fake.url) as client:
        for manner in (CRAWLING, LEAVING_EARLY):
            assert client.send(request(manner), BODY) == Reply()
        assert not fake.headers
        assert client.send(request(LEAVING_LATE), BODY) == Reply()
        assert fake.bodies == {BODY: 1}
        assert client.send(request(KEPT), BODY).status == 200
