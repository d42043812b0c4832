import socket
import socketserver
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from handler.lifecycle.front_door import FrontDoor, FrontDoorError, open_front_door
from handler.lifecycle.relay import address
from scripts.ports import LOOPBACK, Ports

TIMEOUT_S = 20
A_MOMENT_S = 1
MORE_THAN_BUFFERS_HOLD = 200_000_000
GREETING = b"upstream says "


class Echo(socketserver.StreamRequestHandler):
    """Answers everything up to the client's end of file with a greeting and the same again."""

    def handle(self) -> None:
        self.wfile.write(GREETING + self.rfile.read())


@pytest.fixture
def upstream() -> Iterator[str]:
    with socketserver.ThreadingTCPServer((LOOPBACK, 0), Echo) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"{LOOPBACK}:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def port() -> int:
    return Ports.free().inference


@contextmanager
def opened(port: int, upstream: str) -> Iterator[FrontDoor]:
    """A door; at the end its relay has ended too."""
    door = FrontDoor(f"{LOOPBACK}:{port}", upstream)
    with door.process:
        yield door
        door.close()
        assert door.process.wait(TIMEOUT_S) == 0


@pytest.fixture
def door(upstream: str, port: int) -> Iterator[FrontDoor]:
    with opened(port, upstream) as door:
        yield door


def connect(port: int) -> socket.socket:
    return socket.create_connection((LOOPBACK, port), TIMEOUT_S)


def say(connection: socket.socket, words: bytes) -> bytes:
    """What comes back until the other side closes."""
    sender = Thread(target=_send, args=(connection, words))
    sender.start()
    with connection.makefile("rb") as answer:
        heard = answer.read()
    sender.join()
    return heard


def _send(connection: socket.socket, words: bytes) -> None:
    connection.sendall(words)
    connection.shutdown(socket.SHUT_WR)


def assert_refused(port: int) -> None:
    """It takes the relay a moment to hear that it is to close."""
    until_refused = Retrying(
        stop=stop_after_delay(TIMEOUT_S), wait=wait_fixed(0.02), retry=retry_if_result(bool)
    )
    until_refused(is_open, port)


def is_open(port: int) -> bool:
    try:
        connect(port).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("words", [b"", b"hello", bytes(range(256)) * 40_000], ids=len)
@pytest.mark.usefixtures("door")
def test_bytes_go_both_ways(port: int, words: bytes) -> None:
    with connect(port) as connection:
        assert say(connection, words) == GREETING + words


@pytest.mark.usefixtures("door")
def test_connections_are_kept_apart(port: int) -> None:
    with connect(port) as first, connect(port) as second:
        assert say(second, b"two") == GREETING + b"two"
        assert say(first, b"one") == GREETING + b"one"


def test_a_closed_door_takes_nobody_in_and_lets_those_inside_finish(
    door: FrontDoor, port: int
) -> None:
    with connect(port) as inside:
        inside.sendall(b"I am ")
        door.close()
        assert_refused(port)
        assert say(inside, b"inside") == GREETING + b"I am inside"


def test_workers_share_a_port(door: FrontDoor, upstream: str, port: int) -> None:
    with opened(port, upstream):
        door.close()
        door.process.wait(TIMEOUT_S)
        for _ in range(20):
            with connect(port) as connection:
                assert say(connection, b"hello") == GREETING + b"hello"
    assert_refused(port)


def test_a_client_hears_when_there_is_nobody_behind_the_door(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    nobody = f"{LOOPBACK}:{Ports.free().inference}"
    with opened(port, nobody), connect(port) as connection:
        assert connection.recv(1) == b""
    assert capfd.readouterr().err == ""


def test_the_server_hears_when_a_client_breaks_off(port: int) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        server.settimeout(TIMEOUT_S)
        with opened(port, f"{LOOPBACK}:{server.getsockname()[1]}"):
            with connect(port) as client:
                inside, _ = server.accept()
                client.sendall(b"I am ")
                # Closing resets the connection instead of ending it.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with inside, inside.makefile("rb") as heard:
                inside.settimeout(TIMEOUT_S)
                assert b"I am ".startswith(heard.read())


def test_a_server_that_does_not_read_holds_its_client_back(port: int) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        server.settimeout(TIMEOUT_S)
        with opened(port, f"{LOOPBACK}:{server.getsockname()[1]}"), connect(port) as client:
            inside, _ = server.accept()
            client.settimeout(A_MOMENT_S)
            with inside, pytest.raises(TimeoutError):
                client.sendall(bytes(MORE_THAN_BUFFERS_HOLD))


def test_a_door_opens_whatever_lies_on_the_python_path(
    upstream: str, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asyncio.py").write_text("raise ImportError('not the real one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with opened(port, upstream), connect(port) as connection:
        assert say(connection, b"hello") == GREETING + b"hello"


def test_a_port_in_use_is_an_error(upstream: str) -> None:
    with pytest.raises(FrontDoorError, match="cannot be opened"):
        FrontDoor(upstream, upstream)


def test_an_address_ends_with_its_port() -> None:
    assert address("::1:8080") == ("::1", 8080)


@pytest.mark.parametrize("asked", [{}, {"D2SERVE_PUBLIC_ADDRESS": ""}], ids=["unset", "empty"])
def test_no_door_is_asked_for(asked: dict[str, str]) -> None:
    assert open_front_door(asked | {"TS_INFERENCE_ADDRESS": "http://127.0.0.1:8081"}) is None


@pytest.mark.parametrize(
    "upstream", [None, "", "unix:/tmp/socket", "http://127.0.0.1", "http://:8081"]
)
def test_a_door_needs_to_know_what_is_behind_it(upstream: str | None) -> None:
    environment = {"D2SERVE_PUBLIC_ADDRESS": "127.0.0.1:8080"}
    if upstream is not None:
        environment["TS_INFERENCE_ADDRESS"] = upstream
    with pytest.raises(FrontDoorError, match=r"TS_INFERENCE_ADDRESS=http://127\.0\.0\.1:8081"):
        open_front_door(environment)


def test_a_door_is_opened_as_the_environment_says(upstream: str, port: int) -> None:
    environment = {
        "D2SERVE_PUBLIC_ADDRESS": f"{LOOPBACK}:{port}",
        "TS_INFERENCE_ADDRESS": f"http://{upstream}",
    }
    door = open_front_door(environment)
    assert door
    with door.process:
        with connect(port) as connection:
            assert say(connection, b"hello") == GREETING + b"hello"
        door.close()
