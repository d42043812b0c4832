import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.proxy.sockets import Upstream, listen, parse_address

RESPONSE = b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n\r\n"
EXCEEDS_SOCKET_BUFFERS = bytes(50_000_000)
TIMEOUT_S = 20


def test_an_address_ends_with_its_port() -> None:
    assert parse_address("::1:8080") == ("::1", 8080)


@pytest.mark.parametrize(
    ("public", "reachable"),
    [
        pytest.param("127.0.0.1", {"127.0.0.1"}, id="loopback"),
        pytest.param("::1", {"::1"}, id="IPv6 loopback"),
        pytest.param("0.0.0.0", {"127.0.0.1"}, id="IPv4"),
        pytest.param("::", {"127.0.0.1", "::1"}, id="all"),
    ],
)
def test_a_listener_is_reachable_at_its_addresses(public: str, reachable: set[str]) -> None:
    with listen((public, 0)) as listener:
        port = listener.getsockname()[1]
        assert {host for host in ("127.0.0.1", "::1") if is_open(host, port)} == reachable


def is_open(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_the_error_for_a_port_in_use_names_it() -> None:
    with (
        listen(("127.0.0.1", 0)) as listener,
        pytest.raises(OSError, match=r"Address already in use.*127\.0\.0\.1"),
    ):
        listen(listener.getsockname())


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """The listening socket of a server that the test controls."""
    with socket.create_server((LOOPBACK, 0)) as listening:
        listening.settimeout(TIMEOUT_S)
        yield listening


async def connect(server: socket.socket) -> tuple[Upstream, socket.socket]:
    """A connection: the proxy's end and the server's end."""
    upstream = await Upstream.connect(*server.getsockname())
    accepted, _ = server.accept()
    accepted.settimeout(TIMEOUT_S)
    return upstream, accepted


def test_a_response_is_read_even_if_the_server_has_reset_the_connection(
    server: socket.socket,
) -> None:
    async def read_response() -> bytes:
        upstream, accepted = await connect(server)
        with closing(upstream):
            await upstream.send(b"a request")
            # Closing a socket that has unread bytes resets the connection.
            accepted.recv(1)
            accepted.sendall(RESPONSE)
            accepted.close()
            for _ in range(3):
                await upstream.send(b"its rest")
            upstream.shut_down_sending()
            return await upstream.read()

    assert asyncio.run(read_response()) == RESPONSE


def test_sending_ends_when_the_server_disconnects(server: socket.socket) -> None:
    async def send() -> None:
        upstream, accepted = await connect(server)
        with closing(upstream):
            sending = asyncio.create_task(upstream.send(EXCEEDS_SOCKET_BUFFERS))
            await asyncio.sleep(0.01)
            assert not sending.done()
            accepted.close()
            await asyncio.wait_for(sending, TIMEOUT_S)

    asyncio.run(send())


def test_each_side_notices_the_end_of_the_other(server: socket.socket) -> None:
    async def exchange() -> None:
        upstream, accepted = await connect(server)
        with closing(upstream), accepted, accepted.makefile("rb") as received:
            await upstream.send(b"hello")
            upstream.shut_down_sending()
            assert received.read() == b"hello"
            accepted.sendall(b"a")
            assert await upstream.read() == b"a"
            reading = asyncio.create_task(upstream.read())
            await asyncio.sleep(0)
            upstream.shut_down()
            assert await asyncio.wait_for(reading, TIMEOUT_S) == b""

    asyncio.run(exchange())


def test_connecting_fails_if_nothing_listens() -> None:
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(Upstream.connect(LOOPBACK, Ports.free().inference))
