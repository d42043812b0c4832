"""The port that a server's workers open together, in front of a fake server."""

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

from d2serve.errors import ProxyError
from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.proxy import supervisor
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.process import workers_file
from d2serve.servers.torchserve.proxy.proxy import Proxy, start_proxy, stop_server
from d2serve.servers.torchserve.proxy.shared_files import FileLock

TIMEOUT_S = 20
SHORT_TIMEOUT_S = 1
EXCEEDS_SOCKET_BUFFERS = 200_000_000
GREETING = b"upstream received "
HELLO = b"hello\r\n\r\n"
REQUEST = b"POST /invocations HTTP/1.1\r\ncontent-length: 0\r\n\r\n"


class Echo(socketserver.StreamRequestHandler):
    """Returns a greeting and all bytes up to the client's end of file."""

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
    """The path prefix of the files that the workers of one server share."""
    return tmp_path / "server"


@contextmanager
def open_proxy(port: int, upstream: str, state: Path) -> Iterator[Proxy]:
    with closing_proxy(Proxy(f"{LOOPBACK}:{port}", upstream, state)) as proxy:
        yield proxy


@contextmanager
def closing_proxy(proxy: Proxy) -> Iterator[Proxy]:
    """Close the proxy at the end and check that its process exits."""
    try:
        yield proxy
        proxy.close()
        assert proxy.supervisor.process.wait(TIMEOUT_S) == 0
    finally:
        proxy.supervisor.process.kill()
        proxy.supervisor.process.wait()


@pytest.fixture
def proxy(upstream: str, port: int, state: Path) -> Iterator[Proxy]:
    with open_proxy(port, upstream, state) as proxy:
        yield proxy


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """The listening socket of a server that the test controls."""
    with socket.create_server((LOOPBACK, 0)) as listening:
        listening.settimeout(TIMEOUT_S)
        yield listening


@pytest.fixture
def watch_connection(server: socket.socket, port: int, state: Path) -> Iterator[socket.socket]:
    """The connection by which an open proxy notices that the server has exited."""
    with open_proxy(port, f"{LOOPBACK}:{server.getsockname()[1]}", state):
        connection, _ = server.accept()
        with connection:
            yield connection


@contextmanager
def another_worker(port: int, upstream: str, state: Path) -> Iterator[psutil.Process]:
    """Another process that opens the same proxy."""
    code = (
        "import sys; from pathlib import Path; "
        "from d2serve.servers.torchserve.proxy.proxy import Proxy; "
        "Proxy(*sys.argv[1:3], Path(sys.argv[3])); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, f"{LOOPBACK}:{port}", upstream, str(state)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout
        assert worker.stdout.readline() == b"open\n"
        yield psutil.Process(worker.pid)
        worker.kill()


def connect(port: int) -> socket.socket:
    return socket.create_connection((LOOPBACK, port), TIMEOUT_S)


def exchange(connection: socket.socket, sent: bytes) -> bytes:
    """Send bytes and the end of file; return all bytes received until the other side closes."""
    sender = Thread(target=_send, args=(connection, sent))
    sender.start()
    with connection.makefile("rb") as response:
        received = response.read()
    sender.join()
    return received


def _send(connection: socket.socket, sent: bytes) -> None:
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)


def wait_until_closed(port: int) -> None:
    """The proxy process closes the port within moments."""
    polling = Retrying(
        stop=stop_after_delay(TIMEOUT_S), wait=wait_fixed(0.02), retry=retry_if_result(bool)
    )
    polling(is_open, port)


def is_open(port: int) -> bool:
    try:
        connect(port).close()
    except ConnectionError:  # a reset, if the port was about to close
        return False
    return True


def wait_until_exited(process: psutil.Process) -> None:
    """Also if its parent has not reaped it."""
    polling = Retrying(
        stop=stop_after_delay(TIMEOUT_S), wait=wait_fixed(0.02), retry=retry_if_result(bool)
    )
    polling(is_alive, process)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("sent", [HELLO, bytes(range(256)) * 40_000], ids=len)
@pytest.mark.usefixtures("proxy")
def test_bytes_are_forwarded_in_both_directions(port: int, sent: bytes) -> None:
    with connect(port) as connection:
        assert exchange(connection, sent) == GREETING + sent


@pytest.mark.usefixtures("proxy")
def test_connections_are_independent(port: int) -> None:
    with connect(port) as first, connect(port) as second:
        assert exchange(second, b"two\r\n\r\n") == GREETING + b"two\r\n\r\n"
        assert exchange(first, b"one\r\n\r\n") == GREETING + b"one\r\n\r\n"


def test_a_closed_proxy_accepts_no_clients_and_finishes_running_requests(
    proxy: Proxy, port: int
) -> None:
    with connect(port) as connected:
        connected.sendall(b"I am ")
        proxy.close()
        wait_until_closed(port)
        assert exchange(connected, b"inside\r\n\r\n") == GREETING + b"I am inside\r\n\r\n"


def test_the_port_outlives_the_worker_that_opened_it(upstream: str, port: int, state: Path) -> None:
    with another_worker(port, upstream, state) as worker:
        worker.kill()
        worker.wait(TIMEOUT_S)
        with connect(port) as connection:
            assert exchange(connection, HELLO) == GREETING + HELLO
        with open_proxy(port, upstream, state):
            pass
    wait_until_closed(port)


def test_a_worker_is_ready_from_opening_to_closing(proxy: Proxy, state: Path) -> None:
    workers = FileLock(workers_file(state))
    assert workers.is_held_elsewhere()
    proxy.close()
    assert not workers.is_held_elsewhere()


def test_a_proxy_process_that_dies_is_restarted(upstream: str, port: int, state: Path) -> None:
    with open_proxy(port, upstream, state) as proxy:
        first = proxy.supervisor.process
        for _ in range(2):
            process = psutil.Process(proxy.supervisor.process.pid)
            process.kill()
            wait_until_exited(process)
            until_open = Retrying(stop=stop_after_delay(TIMEOUT_S), wait=wait_fixed(0.02))
            with until_open(connect, port) as connection:
                assert exchange(connection, HELLO) == GREETING + HELLO
        assert proxy.supervisor.process != first
    wait_until_closed(port)


def test_a_port_that_cannot_be_reopened_is_reported(
    server: socket.socket, port: int, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "RESTART_TIMEOUT_S", 0.5)
    lost = Event()
    upstream = f"{LOOPBACK}:{server.getsockname()[1]}"
    proxy = Proxy(f"{LOOPBACK}:{port}", upstream, state, on_lost=lost.set)
    server.close()
    proxy.supervisor.process.kill()
    assert lost.wait(TIMEOUT_S)
    proxy.close()


def test_only_this_workers_own_server_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *arguments: signals.append(arguments))
    stop_server(os.getppid() + 1)
    assert not signals
    stop_server(os.getppid())
    assert signals == [(os.getppid(), signal.SIGTERM)]


def test_a_standby_process_takes_over_the_port(upstream: str, port: int, state: Path) -> None:
    with another_worker(port, upstream, state) as worker:
        [process] = worker.children()
        with open_proxy(port, upstream, state):
            process.kill()
            wait_until_exited(process)
            until_open = Retrying(stop=stop_after_delay(TIMEOUT_S), wait=wait_fixed(0.02))
            with until_open(connect, port) as connection:
                assert exchange(connection, HELLO) == GREETING + HELLO


@pytest.mark.usefixtures("proxy")
def test_a_standby_process_exits_with_its_worker(upstream: str, port: int, state: Path) -> None:
    with another_worker(port, upstream, state) as worker:
        [process] = worker.children()
        worker.kill()
        wait_until_exited(process)
    with connect(port) as connection:
        assert exchange(connection, HELLO) == GREETING + HELLO


def test_no_server_behind_the_proxy_is_an_error(port: int, state: Path) -> None:
    upstream = f"{LOOPBACK}:{Ports.free().inference}"
    with pytest.raises(ProxyError, match=r"cannot be opened: .*Connect call failed"):
        Proxy(f"{LOOPBACK}:{port}", upstream, state)


def test_pending_requests_get_an_error_when_the_server_exits(
    server: socket.socket, port: int, watch_connection: socket.socket
) -> None:
    with connect(port) as client:
        client.sendall(REQUEST)
        accepted, _ = server.accept()
        with accepted:
            accepted.recv(1)
        with client.makefile("rb") as response:
            assert b'{"error": {"code": "internal"' in response.read()
    server.close()
    watch_connection.close()
    wait_until_closed(port)


@pytest.mark.usefixtures("watch_connection")
def test_a_connection_closes_after_the_response_to_connection_close(
    server: socket.socket, port: int
) -> None:
    """TorchServe keeps it open."""
    responses = [b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + body for body in (b"a", b"b")]
    first, last = (
        REQUEST.replace(b"\r\n\r\n", b"\r\nconnection: " + option + b"\r\n\r\n")
        for option in (b"keep-alive", b"close")
    )
    with connect(port) as client, client.makefile("rb") as received:
        client.sendall(first)
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(TIMEOUT_S)
            for request, response in zip((b"", last), responses, strict=True):
                client.sendall(request)
                accepted.recv(1000)
                accepted.sendall(response)
                assert received.read(len(response)) == response
            assert received.read() == b""
            client.close()
            received.close()
            assert accepted.recv(1000) == b""


@pytest.mark.usefixtures("watch_connection")
def test_the_server_notices_a_client_disconnect(server: socket.socket, port: int) -> None:
    with connect(port) as client:
        client.sendall(REQUEST)
        accepted, _ = server.accept()
        # With this option, closing resets the connection.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with accepted, accepted.makefile("rb") as received:
        accepted.settimeout(TIMEOUT_S)
        received.read()


@pytest.mark.usefixtures("watch_connection")
def test_a_server_that_does_not_read_blocks_its_client(server: socket.socket, port: int) -> None:
    with connect(port) as client:
        client.settimeout(SHORT_TIMEOUT_S)
        with pytest.raises(TimeoutError):
            client.sendall(bytes(EXCEEDS_SOCKET_BUFFERS))
    server.accept()[0].close()


def test_the_proxy_ignores_pythonpath(
    upstream: str, port: int, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asyncio.py").write_text("raise ImportError('not the real one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with open_proxy(port, upstream, state), connect(port) as connection:
        assert exchange(connection, HELLO) == GREETING + HELLO


def test_the_proxy_imports_only_the_standard_library() -> None:
    """Its process starts in moments and needs little memory."""
    code = (
        "import sys; before = set(sys.modules); "
        "import d2serve.servers.torchserve.proxy.process; "
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(*sorted(names - set(sys.stdlib_module_names)))"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert completed.stdout.split() == ["d2serve"]


def test_a_port_in_use_is_an_error(upstream: str, state: Path) -> None:
    with pytest.raises(ProxyError, match=r"cannot be opened: .*Address already in use"):
        Proxy(upstream, upstream, state)


def test_a_symbolic_link_in_place_of_a_state_file_is_an_error(upstream: str, state: Path) -> None:
    state.with_suffix(".port").symlink_to(state.with_suffix(".elsewhere"))
    with pytest.raises(ProxyError, match="state files cannot be opened"):
        Proxy(upstream, upstream, state)
    assert not state.with_suffix(".elsewhere").exists()


@pytest.mark.parametrize(
    "environment", [{}, {"D2SERVE_PUBLIC_ADDRESS": ""}], ids=["unset", "empty"]
)
def test_there_is_no_proxy_without_a_public_address(environment: dict[str, str]) -> None:
    server_address = {"TS_INFERENCE_ADDRESS": "http://127.0.0.1:8081"}
    assert start_proxy(environment | server_address, Limits()) is None


@pytest.mark.parametrize(
    "upstream", [None, "", "unix:/tmp/socket", "http://127.0.0.1", "http://:8081"]
)
def test_the_proxy_requires_the_servers_address(upstream: str | None) -> None:
    environment = {"D2SERVE_PUBLIC_ADDRESS": "127.0.0.1:8080"}
    if upstream is not None:
        environment["TS_INFERENCE_ADDRESS"] = upstream
    with pytest.raises(ProxyError, match=r"TS_INFERENCE_ADDRESS=http://127\.0\.0\.1:8081"):
        start_proxy(environment, Limits())


def test_the_environment_configures_the_proxy(
    upstream: str, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = {
        "D2SERVE_PUBLIC_ADDRESS": f"{LOOPBACK}:{port}",
        "TS_INFERENCE_ADDRESS": f"http://{upstream}",
    }
    proxy = start_proxy(environment, Limits())
    assert proxy
    with closing_proxy(proxy), connect(port) as connection:
        assert exchange(connection, HELLO) == GREETING + HELLO
    assert {path.stem for path in tmp_path.iterdir()} == {f"d2serve-{os.getppid()}"}
