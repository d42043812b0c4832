"""The public port that the workers of a server open together, in processes of their own."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import pytest

from d2serve.errors import ProxyError
from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.proxy import supervisor
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.process import parse_address
from d2serve.servers.torchserve.proxy.proxy import Proxy, start_proxy
from d2serve.servers.torchserve.proxy.server import listen
from tests.polling import wait_until
from tests.servers.proxy.running import (
    CLOSE,
    TIMEOUT_S,
    FakeTorchServe,
    get,
    post,
    receive_all,
)

MODEL = ("shapes", "1.0")


@pytest.fixture(autouse=True)
def temporary(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The folder for temporary files, with a path short enough for sockets."""
    tmp_path_factory.getbasetemp()  # pytest's own folder stays elsewhere
    with tempfile.TemporaryDirectory(prefix="d2s-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.fixture
def torchserve() -> Iterator[FakeTorchServe]:
    with FakeTorchServe() as server:
        Thread(target=server.serve_forever, daemon=True, args=(0.05,)).start()
        yield server
        server.release.set()
        server.shutdown()


@pytest.fixture
def upstream(torchserve: FakeTorchServe) -> str:
    return f"{LOOPBACK}:{torchserve.server_address[1]}"


@pytest.fixture
def port() -> int:
    return Ports.free().inference


@contextmanager
def open_proxy(port: int, upstream: str, **arguments: Any) -> Iterator[Proxy]:
    """Close the proxy at the end and check that its process exits."""
    proxy = Proxy(f"{LOOPBACK}:{port}", upstream, MODEL, **arguments)
    try:
        yield proxy
        proxy.close()
        process = proxy.supervisor.process
        assert process is None or process.wait(TIMEOUT_S) == 0
    finally:
        if proxy.supervisor.process:
            proxy.supervisor.process.kill()
            proxy.supervisor.process.wait()


@pytest.fixture
def proxy(upstream: str, port: int) -> Iterator[Proxy]:
    with open_proxy(port, upstream) as proxy:
        yield proxy


@contextmanager
def another_worker(port: int, upstream: str) -> Iterator[psutil.Process]:
    """Another process that opens the same proxy."""
    code = (
        "import sys; from d2serve.servers.torchserve.proxy.proxy import Proxy; "
        "Proxy(*sys.argv[1:3], ('shapes', '1.0')); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, f"{LOOPBACK}:{port}", upstream]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout
        assert worker.stdout.readline() == b"open\n"
        yield psutil.Process(worker.pid)
        worker.kill()


def send(port: int, sent: bytes) -> bytes:
    with socket.create_connection((LOOPBACK, port), TIMEOUT_S) as client:
        client.sendall(sent)
        return receive_all(client)


def is_open(port: int) -> bool:
    try:
        return send(port, get("/v2/health/live", CLOSE)).endswith(b'{"live": true}')
    except ConnectionError:  # a reset, if the port was about to close
        return False


def is_closed(port: int) -> bool:
    return not is_open(port)


def listeners(port: int) -> list[psutil.Process]:
    """The proxy processes of a port."""
    return [
        each
        for each in psutil.process_iter(["cmdline", "status"])
        if f"{LOOPBACK}:{port}" in (each.info["cmdline"] or [])
        and "proxy.process" in str(each.info["cmdline"])
        and each.info["status"] != psutil.STATUS_ZOMBIE
    ]


def test_requests_are_forwarded_until_the_proxy_is_closed(
    proxy: Proxy, torchserve: FakeTorchServe, port: int
) -> None:
    assert send(port, post(b"a", CLOSE)).endswith(b"good")
    torchserve.release.clear()
    with socket.create_connection((LOOPBACK, port), TIMEOUT_S) as client:
        client.sendall(post(b"b"))
        wait_until(lambda: len(torchserve.received) == 2)
        proxy.close()
        wait_until(lambda: is_closed(port))
        torchserve.release.set()
        assert receive_all(client).endswith(b"good")


def test_the_runtime_folder_is_private_and_removed_by_the_last_process(
    upstream: str, port: int, temporary: Path
) -> None:
    with open_proxy(port, upstream) as proxy:
        folder = proxy.folder.path
        assert folder == temporary / f"d2serve-{os.geteuid()}-{LOOPBACK}_{port}"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(temporary.iterdir()) == []


def test_the_port_outlives_the_worker_that_opened_it(
    upstream: str, port: int, temporary: Path
) -> None:
    with another_worker(port, upstream) as worker:
        worker.kill()
        worker.wait(TIMEOUT_S)
        assert is_open(port)
        with open_proxy(port, upstream) as proxy:
            assert proxy.supervisor.process is None
    wait_until(lambda: is_closed(port))
    wait_until(lambda: not list(temporary.iterdir()))


def wait_until_gone(process: psutil.Process, port: int) -> None:
    wait_until(lambda: process not in listeners(port))


def test_workers_share_one_process_and_any_of_them_restarts_it(upstream: str, port: int) -> None:
    with another_worker(port, upstream) as worker, open_proxy(port, upstream):
        for _ in range(2):
            [process] = listeners(port)
            process.kill()
            wait_until_gone(process, port)
            wait_until(lambda: is_open(port))
            wait_until(lambda: len(listeners(port)) == 1)
        worker.kill()
    wait_until(lambda: is_closed(port))


def test_a_port_that_cannot_be_reopened_is_reported(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "RESTART_TIMEOUT_S", 0.5)
    lost = Event()
    with socket.create_server((LOOPBACK, 0)) as server:
        upstream = f"{LOOPBACK}:{server.getsockname()[1]}"
        proxy = Proxy(f"{LOOPBACK}:{port}", upstream, MODEL, on_lost=lost.set)
    assert proxy.supervisor.process
    proxy.supervisor.process.kill()
    assert lost.wait(TIMEOUT_S)
    assert "the proxy cannot be restarted" in caplog.text
    proxy.close()


def test_a_process_that_does_not_start_is_killed(
    upstream: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "START_TIMEOUT_S", 0.3)
    monkeypatch.setattr(supervisor, "START", "import time; time.sleep(60)")
    started = psutil.Process().children()
    with pytest.raises(ProxyError, match=r"did not start within 0\.3 s"):
        Proxy(f"{LOOPBACK}:{port}", upstream, MODEL)
    assert psutil.Process().children() == started


def test_the_process_exits_with_torchserve(
    torchserve: FakeTorchServe, upstream: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server((LOOPBACK, 0)) as server, ExitStack() as stack:
        address = f"{LOOPBACK}:{server.getsockname()[1]}"
        monkeypatch.setattr(supervisor, "RESTART_TIMEOUT_S", 0.1)
        lost = Event()
        stack.enter_context(open_proxy(port, address, on_lost=lost.set))
        watch, _ = server.accept()
        with socket.create_connection((LOOPBACK, port), TIMEOUT_S) as client:
            client.sendall(post())
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(1)
            assert b'{"error": {"code": "internal"' in client.recv(4096)
        server.close()
        watch.close()
        wait_until(lambda: is_closed(port))
        assert lost.wait(TIMEOUT_S)


def test_responses_that_no_worker_has_made_are_reported_to_a_worker(
    upstream: str, port: int
) -> None:
    events: list[dict[str, Any]] = []
    with (
        another_worker(port, upstream),
        open_proxy(port, upstream, on_event=events.append) as proxy,
    ):
        # The other worker, which has the smaller or the larger process id, does not count.
        dead = proxy.folder.path / "0.events"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
            left.bind(str(dead))
        for receiver in proxy.folder.path.glob("*.events"):
            if receiver.stem not in ("0", str(os.getpid())):
                receiver.unlink()
        send(port, get("/nothing", CLOSE))
        wait_until(lambda: events)
        assert not dead.exists()
    assert [(event["status"], event["code"]) for event in events] == [(404, "not_found")]


def test_the_proxy_ignores_pythonpath(
    upstream: str, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asyncio.py").write_text("raise ImportError('not the real one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with open_proxy(port, upstream):
        assert is_open(port)


def test_the_process_imports_only_h11_and_the_standard_library() -> None:
    """It starts in moments and needs little memory."""
    code = (
        "import sys; before = set(sys.modules); "
        "import d2serve.servers.torchserve.proxy.process; "
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(*sorted(names - set(sys.stdlib_module_names)))"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert completed.stdout.split() == ["d2serve", "h11"]


def test_no_server_behind_the_proxy_is_an_error(port: int, temporary: Path) -> None:
    with pytest.raises(ProxyError, match=r"cannot be opened: .*Connect call failed"):
        Proxy(f"{LOOPBACK}:{port}", f"{LOOPBACK}:{Ports.free().inference}", MODEL)
    assert list(temporary.iterdir()) == []


def test_a_port_in_use_is_an_error(upstream: str) -> None:
    with pytest.raises(ProxyError, match=r"cannot be opened: .*Address already in use"):
        Proxy(upstream, upstream, MODEL)


def test_a_folder_of_too_long_a_path_is_an_error(
    upstream: str, port: int, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = temporary / ("a" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(ProxyError, match="set TMPDIR to a shorter path"):
        Proxy(f"{LOOPBACK}:{port}", upstream, MODEL)


def test_a_folder_that_others_can_write_is_an_error(
    upstream: str, port: int, temporary: Path
) -> None:
    folder = temporary / f"d2serve-{os.geteuid()}-{LOOPBACK}_{port}"
    folder.mkdir(mode=0o755)
    with pytest.raises(ProxyError, match=r"with mode 755, expected .* with mode 700; remove it"):
        Proxy(f"{LOOPBACK}:{port}", upstream, MODEL)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_an_error(upstream: str, port: int, temporary: Path) -> None:
    folder = temporary / f"d2serve-{os.geteuid()}-{LOOPBACK}_{port}"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    with pytest.raises(ProxyError, match="belongs to user 12345"):
        Proxy(f"{LOOPBACK}:{port}", upstream, MODEL)


@pytest.mark.parametrize("is_link", [True, False])
def test_a_link_or_a_file_in_place_of_the_folder_is_an_error(
    upstream: str, port: int, temporary: Path, is_link: bool
) -> None:
    folder = temporary / f"d2serve-{os.geteuid()}-{LOOPBACK}_{port}"
    (temporary / "elsewhere").mkdir(mode=0o700)
    if is_link:
        folder.symlink_to(temporary / "elsewhere")
    else:
        folder.touch()
    with pytest.raises(ProxyError, match="runtime folder cannot be opened"):
        Proxy(f"{LOOPBACK}:{port}", upstream, MODEL)
    assert list((temporary / "elsewhere").iterdir()) == []


def start(environment: dict[str, str]) -> Proxy | None:
    return start_proxy(environment, MODEL, Limits(), lambda: None, lambda _: None)


@pytest.mark.parametrize(
    "environment", [{}, {"D2SERVE_PUBLIC_ADDRESS": ""}], ids=["unset", "empty"]
)
def test_there_is_no_proxy_without_a_public_address(environment: dict[str, str]) -> None:
    assert start(environment | {"TS_INFERENCE_ADDRESS": "http://127.0.0.1:8081"}) is None


@pytest.mark.parametrize("origins", ["example.org", "https://a,b", "https://a/,"])
def test_the_proxy_requires_valid_origins(origins: str) -> None:
    environment = {
        "D2SERVE_PUBLIC_ADDRESS": "127.0.0.1:8080",
        "TS_INFERENCE_ADDRESS": "http://127.0.0.1:8081",
        "D2SERVE_CORS_ORIGINS": origins,
    }
    with pytest.raises(ProxyError, match=r"^D2SERVE_CORS_ORIGINS: .* is not an origin"):
        start(environment)


@pytest.mark.parametrize(
    "upstream", [None, "", "unix:/tmp/socket", "http://127.0.0.1", "http://:8081"]
)
def test_the_proxy_requires_the_servers_address(upstream: str | None) -> None:
    environment = {"D2SERVE_PUBLIC_ADDRESS": "127.0.0.1:8080"}
    if upstream is not None:
        environment["TS_INFERENCE_ADDRESS"] = upstream
    with pytest.raises(ProxyError, match=r"TS_INFERENCE_ADDRESS=http://127\.0\.0\.1:8081"):
        start(environment)


def test_the_environment_configures_the_proxy(upstream: str, port: int) -> None:
    environment = {
        "D2SERVE_PUBLIC_ADDRESS": f"{LOOPBACK}:{port}",
        "TS_INFERENCE_ADDRESS": f"http://{upstream}",
    }
    proxy = start(environment)
    assert proxy
    assert send(port, post(b"", CLOSE)).endswith(b"good")
    proxy.close()
    assert proxy.supervisor.process
    assert proxy.supervisor.process.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:1", ("localhost", 1)),
        ("[::1]:8080", ("::1", 8080)),
        (":::8080", ("::", 8080)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_all_addresses_of_ipv6_include_those_of_ipv4(port: int) -> None:
    with listen(("::", port)):
        for host in (LOOPBACK, "::1"):
            socket.create_connection((host, port), TIMEOUT_S).close()
