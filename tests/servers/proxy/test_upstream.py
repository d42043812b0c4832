"""The front door's connection to a server whose part the test plays."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.proxy.connection import Upstream

ANSWER = b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n\r\n"
MORE_THAN_BUFFERS_HOLD = bytes(50_000_000)
TIMEOUT_S = 20


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((LOOPBACK, 0)) as listening:
        listening.settimeout(TIMEOUT_S)
        yield listening


async def connected(listener: socket.socket) -> tuple[Upstream, socket.socket]:
    upstream = await Upstream.connected(*listener.getsockname())
    inside, _ = listener.accept()
    inside.settimeout(TIMEOUT_S)
    return upstream, inside


def test_an_answer_is_read_though_the_server_has_reset_the_connection(
    listener: socket.socket,
) -> None:
    async def answered() -> bytes:
        upstream, inside = await connected(listener)
        with closing(upstream):
            await upstream.send(b"a request")
            # Closed with bytes unread: that resets it.
            inside.recv(1)
            inside.sendall(ANSWER)
            inside.close()
            for _ in range(3):
                await upstream.send(b"its rest")
            upstream.end()
            return await upstream.read()

    assert asyncio.run(answered()) == ANSWER


def test_a_server_that_goes_while_it_is_sent_to_ends_the_sending(listener: socket.socket) -> None:
    async def sent() -> None:
        upstream, inside = await connected(listener)
        with closing(upstream):
            sending = asyncio.create_task(upstream.send(MORE_THAN_BUFFERS_HOLD))
            await asyncio.sleep(0.01)
            assert not sending.done()
            inside.close()
            await asyncio.wait_for(sending, TIMEOUT_S)

    asyncio.run(sent())


def test_each_side_hears_the_end_of_the_other(listener: socket.socket) -> None:
    async def heard() -> None:
        upstream, inside = await connected(listener)
        with closing(upstream), inside, inside.makefile("rb") as at_the_server:
            await upstream.send(b"hello")
            upstream.end()
            assert at_the_server.read() == b"hello"
            inside.sendall(b"a")
            assert await upstream.read() == b"a"
            reading = asyncio.create_task(upstream.read())
            await asyncio.sleep(0)
            upstream.shut()
            assert await asyncio.wait_for(reading, TIMEOUT_S) == b""

    asyncio.run(heard())


def test_nobody_there_is_an_error() -> None:
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(Upstream.connected(LOOPBACK, Ports.free().inference))
