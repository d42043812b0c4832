"""Draining against a fake of TorchServe's gRPC server, frame by frame."""

import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Protocol

import pytest

from d2serve.servers.torchserve import draining
from d2serve.servers.torchserve.draining import Activity, start_draining
from d2serve.servers.torchserve.http2 import Frame
from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 1, 3, 4, 6, 7
# The fields that gRPC requires, each name and value after its length.
FIELDS = (
    b"\x07:method\x04POST",
    b"\x07:scheme\x04http",
    b"\x05:path\x3b/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping",
    b"\x0a:authority\x09localhost",
    b"\x0ccontent-type\x10application/grpc",
    b"\x02te\x08trailers",
)
TIMEOUT_S = 20
SHORT_TIMEOUT_S = 0.3


class GrpcServer:
    """The server's end of the one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._incoming = connection.makefile("rb")
        assert self._incoming.read(len(PREFACE)) == PREFACE

    def close(self) -> None:
        self._incoming.close()
        self._connection.close()

    def send(self, kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> None:
        self._connection.sendall(Frame(kind, flags, stream, payload).encode())

    def receive(self) -> Frame | None:
        """The next frame; None if the client has closed the connection."""
        header = self._incoming.read(9)
        if not header:
            return None
        length = int.from_bytes(header[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", header[3:])
        return Frame(kind, flags, stream, self._incoming.read(length))

    def receives_nothing(self) -> bool:
        """True if the client sends nothing for a moment and keeps the connection open."""
        readable, _, _ = select.select([self._connection], [], [], SHORT_TIMEOUT_S)
        return not readable


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((LOOPBACK, 0)) as listening:
        listening.settimeout(TIMEOUT_S)
        yield listening


class Start(Protocol):
    def __call__(
        self, activity: Activity, *, timeout_s: float = 60, stopped: Event | None = None
    ) -> GrpcServer: ...


def shut_down(server: GrpcServer, listener: socket.socket) -> None:
    """As gRPC servers do: accept no more connections, then send GOAWAY."""
    listener.close()
    server.send(GOAWAY, payload=bytes(8))


@pytest.fixture
def start(listener: socket.socket) -> Iterator[Start]:
    """Start draining; return the server's end, after the opening frames."""
    with ExitStack() as stack:

        def start(
            activity: Activity, *, timeout_s: float = 60, stopped: Event | None = None
        ) -> GrpcServer:
            on_stop = stopped.set if stopped else None
            environment = {"TS_GRPC_INFERENCE_PORT": str(listener.getsockname()[1])}
            assert start_draining(activity, environment, timeout_s, on_stop)
            connection, _ = listener.accept()
            connection.settimeout(TIMEOUT_S)
            server = stack.enter_context(closing(GrpcServer(connection)))
            settings, headers = server.receive(), server.receive()
            assert settings == Frame(SETTINGS, 0, 0)
            assert headers
            # END_HEADERS without END_STREAM: the call is open, its message still to come.
            assert (headers.kind, headers.flags, headers.stream) == (HEADERS, 4, 1)
            assert [field for field in FIELDS if field not in headers.payload] == []
            return server

        yield start


@pytest.mark.parametrize("with_token", [True, False])
def test_a_server_that_requires_tokens_gets_one(
    listener: socket.socket, tmp_path: Path, with_token: bool
) -> None:
    key_file = tmp_path / "key_file.json"
    if with_token:
        key_file.write_text('{"inference": {"key": "AbC-1_2="}}')
    environment = {
        "TS_GRPC_INFERENCE_PORT": str(listener.getsockname()[1]),
        "D2SERVE_KEY_FILE": str(key_file),
    }
    assert start_draining(Activity(), environment, 60)
    connection, _ = listener.accept()
    with closing(GrpcServer(connection)) as server:
        server.receive()
        headers = server.receive()
    assert headers
    field = b"\x0dauthorization\x0fBearer AbC-1_2="
    assert (field in headers.payload) == with_token


def test_settings_and_pings_are_acknowledged(start: Start) -> None:
    server = start(Activity())
    server.send(SETTINGS, payload=bytes(6))
    assert server.receive() == Frame(SETTINGS, 1, 0)
    server.send(PING, payload=b"12345678")
    assert server.receive() == Frame(PING, 1, 0, b"12345678")
    server.send(SETTINGS, flags=1)
    server.send(PING, payload=b"abcdefgh")
    assert server.receive() == Frame(PING, 1, 0, b"abcdefgh")


def test_a_shutdown_waits_until_the_worker_is_idle(start: Start, listener: socket.socket) -> None:
    activity, stopped = Activity(), Event()
    server = start(activity, stopped=stopped)
    with activity:
        shut_down(server, listener)
        assert stopped.wait(TIMEOUT_S)
        assert server.receives_nothing()
    assert server.receive() is None


def test_the_server_may_be_silent_for_long_before_it_stops(
    start: Start, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "CONNECT_TIMEOUT_S", SHORT_TIMEOUT_S / 10)
    stopped = Event()
    server = start(Activity(), stopped=stopped)
    assert server.receives_nothing()
    shut_down(server, listener)
    assert stopped.wait(TIMEOUT_S)


def test_headers_of_the_response_do_not_end_the_call(start: Start, listener: socket.socket) -> None:
    activity, stopped = Activity(), Event()
    server = start(activity, stopped=stopped)
    server.send(HEADERS, flags=4, stream=1)
    with activity:
        shut_down(server, listener)
        assert stopped.wait(TIMEOUT_S)
        assert server.receives_nothing()


def test_the_draining_thread_keeps_no_process_alive(start: Start) -> None:
    start(Activity())
    threads = [thread for thread in threading.enumerate() if thread.name == "draining"]
    assert threads
    assert all(thread.daemon for thread in threads)


def test_a_shutdown_waits_no_longer_than_the_timeout(start: Start, listener: socket.socket) -> None:
    activity = Activity()
    server = start(activity, timeout_s=0.1)
    with activity:
        shut_down(server, listener)
        assert server.receive() is None


def test_a_shutdown_does_not_wait_for_an_idle_worker(start: Start, listener: socket.socket) -> None:
    activity = Activity()
    server = start(activity)
    assert server.receives_nothing()
    assert server.receives_nothing()
    shut_down(server, listener)
    assert server.receive() is None


def accept(listener: socket.socket) -> GrpcServer:
    connection, _ = listener.accept()
    connection.settimeout(TIMEOUT_S)
    return GrpcServer(connection)


def test_a_goaway_of_a_running_server_is_not_a_shutdown(
    start: Start, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "CONFIRM_S", SHORT_TIMEOUT_S)
    activity, stopped = Activity(), Event()
    first = start(activity, stopped=stopped)
    with activity:
        first.send(GOAWAY, payload=bytes(8))
        with closing(accept(listener)) as second:
            second.send(SETTINGS)
            assert first.receive() is None  # replaced by the second
            assert not stopped.is_set()
            second.receive(), second.receive(), second.receive()
            shut_down(second, listener)
            assert stopped.wait(TIMEOUT_S)
            assert second.receives_nothing()


@pytest.mark.parametrize("ends", ["goaway", "close"])
def test_a_goaway_that_a_new_connection_also_gets_is_a_shutdown(
    start: Start, listener: socket.socket, ends: str
) -> None:
    stopped = Event()
    first = start(Activity(), stopped=stopped)
    first.send(GOAWAY, payload=bytes(8))
    with closing(accept(listener)) as second:
        if ends == "goaway":
            second.send(GOAWAY, payload=bytes(8))
        else:
            second.close()
        assert stopped.wait(TIMEOUT_S)


@pytest.mark.parametrize(
    ("kind", "flags", "payload"),
    [(HEADERS, 5, b""), (RST_STREAM, 0, bytes(4))],
    ids=["end", "reset"],
)
def test_a_call_that_the_server_ends_delays_nothing(
    start: Start, caplog: pytest.LogCaptureFixture, kind: int, flags: int, payload: bytes
) -> None:
    stopped = Event()
    server = start(Activity(), stopped=stopped)
    server.send(kind, flags, stream=1, payload=payload)
    assert server.receive() is None
    assert "ended the gRPC call" in caplog.text
    assert not stopped.is_set()


def test_a_worker_starts_even_without_a_grpc_server(caplog: pytest.LogCaptureFixture) -> None:
    port = Ports.free().grpc_inference
    assert start_draining(Activity(), {"TS_GRPC_INFERENCE_PORT": str(port)}, 60) is None
    assert f"cannot connect to TorchServe's gRPC port {port}" in caplog.text


def test_the_default_port_is_torchserves(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "DEFAULT_GRPC_PORT", str(listener.getsockname()[1]))
    assert start_draining(Activity(), {}, 60)
    connection, _ = listener.accept()
    connection.close()


def test_a_worker_is_idle_after_its_last_batch() -> None:
    activity = Activity()
    with activity:
        assert activity.idle_s() == 0
        with activity:
            pass
        assert activity.idle_s() == 0
    assert activity.idle_s() > 0


def test_idle_time_starts_at_the_end_of_the_last_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 107.0])
    monkeypatch.setattr(draining, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    activity = Activity()
    with activity:
        pass
    assert activity.idle_s() == 7
