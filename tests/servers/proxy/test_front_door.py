"""The port that a server's workers open together, against a stand-in for the server."""

import os
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.proxy import supervisor as kept_relay
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.process import address, presence_file
from d2serve.servers.torchserve.proxy.proxy import (
    FrontDoor,
    FrontDoorError,
    end_server,
    open_front_door,
)
from d2serve.servers.torchserve.proxy.shared_files import FileLock

TIMEOUT_S = 20
A_MOMENT_S = 1
MORE_THAN_BUFFERS_HOLD = 200_000_000
GREETING = b"upstream says "
HELLO = b"hello\r\n\r\n"
REQUEST = b"POST /invocations HTTP/1.1\r\ncontent-length: 0\r\n\r\n"


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


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """What the workers of one server share."""
    return tmp_path / "server"


@contextmanager
def opened(port: int, upstream: str, state: Path) -> Iterator[FrontDoor]:
    """A door; at the end its relay has ended too."""
    with let_go(FrontDoor(f"{LOOPBACK}:{port}", upstream, state)) as door:
        yield door


@contextmanager
def let_go(door: FrontDoor) -> Iterator[FrontDoor]:
    """At the end the door is closed and its relay has ended."""
    try:
        yield door
        door.close()
        assert door.relay.process.wait(TIMEOUT_S) == 0
    finally:
        door.relay.process.kill()
        door.relay.process.wait()


@pytest.fixture
def door(upstream: str, port: int, state: Path) -> Iterator[FrontDoor]:
    with opened(port, upstream, state) as door:
        yield door


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server whose part the test plays."""
    with socket.create_server((LOOPBACK, 0)) as listening:
        listening.settimeout(TIMEOUT_S)
        yield listening


@pytest.fixture
def watched(listener: socket.socket, port: int, state: Path) -> Iterator[socket.socket]:
    """The connection by which an open door notices that the listener has gone."""
    with opened(port, f"{LOOPBACK}:{listener.getsockname()[1]}", state):
        connection, _ = listener.accept()
        with connection:
            yield connection


@contextmanager
def another_worker(port: int, upstream: str, state: Path) -> Iterator[psutil.Process]:
    """A process of its own that opens the same door."""
    code = (
        "import sys; from pathlib import Path; from handler.lifecycle.front_door import FrontDoor; "
        "FrontDoor(*sys.argv[1:3], Path(sys.argv[3])); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, f"{LOOPBACK}:{port}", upstream, str(state)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout
        assert worker.stdout.readline() == b"open\n"
        yield psutil.Process(worker.pid)
        worker.kill()


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
    except ConnectionError:  # a reset, where it was about to close
        return False
    return True


def wait_until_ended(process: psutil.Process) -> None:
    """Also where nobody has taken note of its end."""
    polling = Retrying(
        stop=stop_after_delay(TIMEOUT_S), wait=wait_fixed(0.02), retry=retry_if_result(bool)
    )
    polling(lives, process)


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("words", [HELLO, bytes(range(256)) * 40_000], ids=len)
@pytest.mark.usefixtures("door")
def test_bytes_go_both_ways(port: int, words: bytes) -> None:
    with connect(port) as connection:
        assert say(connection, words) == GREETING + words


@pytest.mark.usefixtures("door")
def test_connections_are_kept_apart(port: int) -> None:
    with connect(port) as first, connect(port) as second:
        assert say(second, b"two\r\n\r\n") == GREETING + b"two\r\n\r\n"
        assert say(first, b"one\r\n\r\n") == GREETING + b"one\r\n\r\n"


def test_a_closed_door_takes_nobody_in_and_lets_those_inside_finish(
    door: FrontDoor, port: int
) -> None:
    with connect(port) as inside:
        inside.sendall(b"I am ")
        door.close()
        assert_refused(port)
        assert say(inside, b"inside\r\n\r\n") == GREETING + b"I am inside\r\n\r\n"


def test_the_port_outlives_the_worker_that_opened_it(upstream: str, port: int, state: Path) -> None:
    with another_worker(port, upstream, state) as worker:
        worker.kill()
        worker.wait(TIMEOUT_S)
        with connect(port) as connection:
            assert say(connection, HELLO) == GREETING + HELLO
        with opened(port, upstream, state):
            pass
    assert_refused(port)


def test_a_worker_is_ready_from_the_opening_to_the_closing(door: FrontDoor, state: Path) -> None:
    presence = FileLock(presence_file(state))
    assert presence.is_held_by_others()
    door.close()
    assert not presence.is_held_by_others()


def test_a_relay_that_dies_is_replaced(upstream: str, port: int, state: Path) -> None:
    with opened(port, upstream, state) as door:
        first = door.relay.process
        for _ in range(2):
            relay = psutil.Process(door.relay.process.pid)
            relay.kill()
            wait_until_ended(relay)
            until_open = Retrying(stop=stop_after_delay(TIMEOUT_S), wait=wait_fixed(0.02))
            with until_open(connect, port) as connection:
                assert say(connection, HELLO) == GREETING + HELLO
        assert door.relay.process != first
    assert_refused(port)


def test_a_port_that_cannot_be_opened_again_is_told(
    listener: socket.socket, port: int, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_relay, "REOPENING_S", 0.5)
    told = Event()
    upstream = f"{LOOPBACK}:{listener.getsockname()[1]}"
    door = FrontDoor(f"{LOOPBACK}:{port}", upstream, state, on_lost=told.set)
    listener.close()
    door.relay.process.kill()
    assert told.wait(TIMEOUT_S)
    door.close()


def test_the_server_that_is_told_to_end_is_this_workers_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *asked: ended.append(asked))
    end_server(os.getppid() + 1)
    assert not ended
    end_server(os.getppid())
    assert ended == [(os.getppid(), signal.SIGTERM)]


def test_who_stands_by_takes_the_port_over(upstream: str, port: int, state: Path) -> None:
    with another_worker(port, upstream, state) as worker:
        [relay] = worker.children()
        with opened(port, upstream, state):
            relay.kill()
            wait_until_ended(relay)
            until_open = Retrying(stop=stop_after_delay(TIMEOUT_S), wait=wait_fixed(0.02))
            with until_open(connect, port) as connection:
                assert say(connection, HELLO) == GREETING + HELLO


@pytest.mark.usefixtures("door")
def test_who_stands_by_ends_with_its_worker(upstream: str, port: int, state: Path) -> None:
    with another_worker(port, upstream, state) as worker:
        [relay] = worker.children()
        worker.kill()
        wait_until_ended(relay)
    with connect(port) as connection:
        assert say(connection, HELLO) == GREETING + HELLO


def test_nobody_behind_the_door_is_an_error(port: int, state: Path) -> None:
    nobody = f"{LOOPBACK}:{Ports.free().inference}"
    with pytest.raises(FrontDoorError, match=r"cannot be opened: .*Connect call failed"):
        FrontDoor(f"{LOOPBACK}:{port}", nobody, state)


def test_a_server_that_goes_leaves_no_request_without_an_answer(
    listener: socket.socket, port: int, watched: socket.socket
) -> None:
    with connect(port) as client:
        client.sendall(REQUEST)
        inside, _ = listener.accept()
        with inside:
            inside.recv(1)
        with client.makefile("rb") as answer:
            assert b'{"error": {"code": "internal"' in answer.read()
    listener.close()
    watched.close()
    assert_refused(port)


@pytest.mark.usefixtures("watched")
def test_a_connection_ends_after_the_answer_that_the_client_wanted_for_its_last(
    listener: socket.socket, port: int
) -> None:
    """TorchServe keeps it open."""
    answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + end for end in (b"a", b"b")]
    first, last = (
        REQUEST.replace(b"\r\n\r\n", b"\r\nconnection: " + wish + b"\r\n\r\n")
        for wish in (b"keep-alive", b"close")
    )
    with connect(port) as client, client.makefile("rb") as heard:
        client.sendall(first)
        inside, _ = listener.accept()
        with inside:
            inside.settimeout(TIMEOUT_S)
            for sent, answer in zip((b"", last), answers, strict=True):
                client.sendall(sent)
                inside.recv(1000)
                inside.sendall(answer)
                assert heard.read(len(answer)) == answer
            assert heard.read() == b""
            client.close()
            heard.close()
            assert inside.recv(1000) == b""


@pytest.mark.usefixtures("watched")
def test_the_server_hears_when_a_client_breaks_off(listener: socket.socket, port: int) -> None:
    with connect(port) as client:
        client.sendall(REQUEST)
        inside, _ = listener.accept()
        # Closing resets the connection instead of ending it.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with inside, inside.makefile("rb") as heard:
        inside.settimeout(TIMEOUT_S)
        heard.read()


@pytest.mark.usefixtures("watched")
def test_a_server_that_does_not_read_holds_its_client_back(
    listener: socket.socket, port: int
) -> None:
    with connect(port) as client:
        client.settimeout(A_MOMENT_S)
        with pytest.raises(TimeoutError):
            client.sendall(bytes(MORE_THAN_BUFFERS_HOLD))
    listener.accept()[0].close()


def test_a_door_opens_whatever_lies_on_the_python_path(
    upstream: str, port: int, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asyncio.py").write_text("raise ImportError('not the real one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with opened(port, upstream, state), connect(port) as connection:
        assert say(connection, HELLO) == GREETING + HELLO


def test_a_port_in_use_is_an_error(upstream: str, state: Path) -> None:
    with pytest.raises(FrontDoorError, match=r"cannot be opened: .*Address already in use"):
        FrontDoor(upstream, upstream, state)


def test_a_link_in_the_place_of_its_files_is_an_error(upstream: str, state: Path) -> None:
    state.with_suffix(".port").symlink_to(state.with_suffix(".elsewhere"))
    with pytest.raises(FrontDoorError, match="cannot keep its state"):
        FrontDoor(upstream, upstream, state)
    assert not state.with_suffix(".elsewhere").exists()


def test_an_address_ends_with_its_port() -> None:
    assert address("::1:8080") == ("::1", 8080)


@pytest.mark.parametrize("asked", [{}, {"D2SERVE_PUBLIC_ADDRESS": ""}], ids=["unset", "empty"])
def test_no_door_is_asked_for(asked: dict[str, str]) -> None:
    assert (
        open_front_door(asked | {"TS_INFERENCE_ADDRESS": "http://127.0.0.1:8081"}, Limits()) is None
    )


@pytest.mark.parametrize(
    "upstream", [None, "", "unix:/tmp/socket", "http://127.0.0.1", "http://:8081"]
)
def test_a_door_needs_to_know_what_is_behind_it(upstream: str | None) -> None:
    environment = {"D2SERVE_PUBLIC_ADDRESS": "127.0.0.1:8080"}
    if upstream is not None:
        environment["TS_INFERENCE_ADDRESS"] = upstream
    with pytest.raises(FrontDoorError, match=r"TS_INFERENCE_ADDRESS=http://127\.0\.0\.1:8081"):
        open_front_door(environment, Limits())


def test_a_door_is_opened_as_the_environment_says(
    upstream: str, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = {
        "D2SERVE_PUBLIC_ADDRESS": f"{LOOPBACK}:{port}",
        "TS_INFERENCE_ADDRESS": f"http://{upstream}",
    }
    door = open_front_door(environment, Limits())
    assert door
    with let_go(door), connect(port) as connection:
        assert say(connection, HELLO) == GREETING + HELLO
    assert {path.stem for path in tmp_path.iterdir()} == {f"d2serve-{os.getppid()}"}
