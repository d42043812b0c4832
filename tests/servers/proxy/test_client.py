"""The share of work that one client gets, on the event loop itself."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import h11
import pytest

from d2serve.servers.torchserve.proxy.client import PAUSE_S, TURN_PIECES, Client

HEAD = b"POST /invocations HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def connected(sent: bytes) -> AsyncIterator[Client]:
    """The proxy's end of a connection on which a client has sent `sent`."""
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        theirs.sendall(sent)
        client = await Client.accept(ours, None)
        yield client
        await client.close()


async def pieces_per_turn(sent: bytes, count: int) -> list[int]:
    """Numbers of pieces of a body that are processed between two turns of another task."""
    received, turns = 0, [0]

    async def compete() -> None:
        while True:
            turns.append(received)
            await asyncio.sleep(0)

    async with connected(HEAD + sent) as client:
        await client.receive_head()
        competitor = asyncio.create_task(compete())
        while received < count and isinstance(await client.receive(), h11.Data):
            received += 1
        competitor.cancel()
        assert received == count
    return [after - before for before, after in pairwise(turns)]


def test_other_clients_have_a_turn_after_a_few_tiny_chunks() -> None:
    pieces = asyncio.run(pieces_per_turn(b"1\r\na\r\n" * 800, 800))
    assert max(pieces) <= TURN_PIECES


def test_other_clients_have_a_turn_after_each_large_chunk() -> None:
    pieces = asyncio.run(pieces_per_turn((b"800\r\n" + bytes(2048) + b"\r\n") * 20, 20))
    assert max(pieces) == 1


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses in seconds that tasks make, which take no time."""
    made: list[float] = []
    sleep = asyncio.sleep

    async def record(seconds: float) -> None:
        made.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", record)
    return made


@pytest.mark.parametrize(
    ("sent", "count", "expected"),
    [(b"1\r\na\r\n", 800, 800 // TURN_PIECES), (b"800\r\n" + bytes(2048) + b"\r\n", 20, 0)],
    ids=["tiny", "large"],
)
def test_a_client_that_sends_tiny_chunks_is_paced(
    pauses: list[float], sent: bytes, count: int, expected: int
) -> None:
    async def receive() -> None:
        async with connected(HEAD + sent * count) as client:
            await client.receive_head()
            pauses.clear()
            for _ in range(count):
                await client.receive()

    asyncio.run(receive())
    assert pauses.count(PAUSE_S) == expected


def test_pipelined_requests_are_paced(pauses: list[float]) -> None:
    async def receive() -> None:
        async with connected(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n" * 100) as client:
            for _ in range(100):
                assert await client.receive_head()

    asyncio.run(receive())
    assert pauses.count(PAUSE_S) == 99


def test_a_client_that_sends_its_head_byte_by_byte_is_paced(pauses: list[float]) -> None:
    sent = b"GET /ping HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 400 + b"\r\n\r\n"

    async def receive() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            client = await Client.accept(ours, None)
            head = asyncio.create_task(client.receive_head())
            for byte in sent:
                theirs.send(bytes([byte]))
                for _ in range(4):  # the other task reads it
                    await asyncio.sleep(0)
            assert await head
            await client.close()

    asyncio.run(receive())
    # Two bytes may be read as one piece.
    assert pauses.count(PAUSE_S) >= len(sent) // TURN_PIECES // 2
