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


@pytest.mark.parametrize(
    ("sent", "count", "waits"),
    [(b"1\r\na\r\n", 800, True), (b"800\r\n" + bytes(2048) + b"\r\n", 20, False)],
    ids=["tiny", "large"],
)
def test_a_client_that_sends_tiny_chunks_waits_most_of_the_time(
    sent: bytes, count: int, waits: bool
) -> None:
    async def receive() -> float:
        async with connected(HEAD + sent * count) as client:
            await client.receive_head()
            start = asyncio.get_running_loop().time()
            for _ in range(count):
                await client.receive()
            return asyncio.get_running_loop().time() - start

    elapsed_s = asyncio.run(receive())
    if waits:
        assert elapsed_s >= count / TURN_PIECES * PAUSE_S * 0.9
    else:
        assert elapsed_s < 1


def test_pipelined_requests_are_paced() -> None:
    async def receive() -> float:
        async with connected(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n" * 100) as client:
            start = asyncio.get_running_loop().time()
            for _ in range(100):
                assert await client.receive_head()
            return asyncio.get_running_loop().time() - start

    assert asyncio.run(receive()) >= 99 * PAUSE_S * 0.9


def test_a_client_that_sends_its_head_byte_by_byte_is_paced() -> None:
    async def receive() -> tuple[float, int]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            client = await Client.accept(ours, None)
            head = asyncio.create_task(client.receive_head())
            reads = 0
            start = asyncio.get_running_loop().time()
            for byte in b"GET /ping HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 400 + b"\r\n\r\n":
                theirs.send(bytes([byte]))
                reads += 1
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert await head
            elapsed_s = asyncio.get_running_loop().time() - start
            await client.close()
            return elapsed_s, reads

    elapsed_s, _ = asyncio.run(receive())
    assert elapsed_s >= PAUSE_S
