"""Where a front door listens."""

import socket

import pytest

from d2serve.servers.torchserve.proxy.context import listen


@pytest.mark.parametrize(
    ("public", "reached"),
    [
        pytest.param("127.0.0.1", {"127.0.0.1"}, id="loopback"),
        pytest.param("::1", {"::1"}, id="loopback of IPv6"),
        pytest.param("0.0.0.0", {"127.0.0.1"}, id="IPv4"),
        pytest.param("::", {"127.0.0.1", "::1"}, id="all"),
    ],
)
def test_who_can_connect(public: str, reached: set[str]) -> None:
    with listen((public, 0)) as listener:
        port = listener.getsockname()[1]
        assert {host for host in ("127.0.0.1", "::1") if is_open(host, port)} == reached


def is_open(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_port_in_use_is_named() -> None:
    with (
        listen(("127.0.0.1", 0)) as listener,
        pytest.raises(OSError, match=r"Address already in use.*127\.0\.0\.1"),
    ):
        listen(listener.getsockname())
