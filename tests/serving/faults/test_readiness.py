"""The health of a server behind the reverse proxy, and its shutdown."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from d2serve.errors import ServerError
from d2serve.servers.torchserve.launcher.ports import Ports
from d2serve.servers.torchserve.launcher.server import (
    MODEL,
    SERVER,
    Server,
    running_server,
)
from tests.serving.archives import HANDLER, alter, unpack
from tests.serving.faults.faulty import GOOD, HELD, Faulty, faulty_handler, is_open, wait_until


@pytest.fixture
def folder(shapes_mar: Path, tmp_path: Path) -> Path:
    """An unpacked archive whose worker loads once the file `load` exists in the gate."""
    folder = unpack(shapes_mar, tmp_path / "shapes")
    wait = f"while not (Path({str(tmp_path)!r}) / 'load').exists():\n    time.sleep(0.02)\n"
    alter(folder, {HANDLER: faulty_handler(tmp_path) + wait})
    return folder


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_health_from_start_to_shutdown(folder: Path, tmp_path: Path, stack: ExitStack) -> None:
    ports, logs = Ports.free(), tmp_path / "logs"
    pool = stack.enter_context(ThreadPoolExecutor(1))

    def start() -> Server:
        running = running_server(folder, log_dir=logs, ports=ports, with_proxy=True)
        return stack.enter_context(running)

    # Unreachable before a model is loaded.
    starting = pool.submit(start)
    wait_until(lambda: "Torch worker started" in _text(logs / "model_log.log"))
    assert not is_open(ports)
    (tmp_path / "load").touch()
    faulty = Faulty(starting.result(), tmp_path)
    assert faulty.is_healthy()

    # Unhealthy while its last worker cannot start.
    good_handler = (folder / HANDLER).read_text()
    (folder / HANDLER).write_text("import nothing_like_it")
    faulty.worker.kill()
    wait_until(lambda: faulty.server.logs.text(SERVER).count("Retry worker:") >= 2)
    rejected = httpx.get(f"{faulty.server.url}/ping", trust_env=False)
    assert (rejected.status_code, rejected.headers["retry-after"]) == (503, "1")
    (folder / HANDLER).write_text(good_handler)
    assert faulty.send(GOOD).status_code == 200
    assert faulty.is_healthy()

    # On shutdown it completes running and queued requests and rejects new ones.
    for name in ("begun", "open"):
        (tmp_path / name).unlink(missing_ok=True)
    running = [faulty.submit(HELD)]
    wait_until(lambda: (tmp_path / "begun").exists())
    running += [faulty.submit(GOOD) for _ in range(12)]
    faulty.wait_for_queue(12)
    stopping = pool.submit(faulty.server.stop)
    wait_until(lambda: not is_open(ports))
    assert not stopping.done()
    faulty.release()
    assert [response.result().status_code for response in running] == [200] * 13
    stopping.result()
    assert faulty.server.process.returncode is not None


def test_a_server_whose_port_is_lost_exits(folder: Path, tmp_path: Path, stack: ExitStack) -> None:
    (tmp_path / "load").touch()
    short_timeout = (
        "import d2serve.servers.torchserve.proxy.supervisor as supervisor\n"
        "supervisor.RESTART_TIMEOUT_S = 2\n"
    )
    alter(folder, {HANDLER: short_timeout + (folder / HANDLER).read_text()})
    running = running_server(folder, log_dir=tmp_path / "logs", with_proxy=True)
    faulty = Faulty(stack.enter_context(running), tmp_path)
    faulty.proxy.kill()
    # Another program takes the port before the proxy is restarted.
    stack.enter_context(take_port(faulty.server.ports.inference))
    with pytest.raises(ServerError, match="exited unexpectedly"):
        faulty.server.wait_for_exit()
    assert "the proxy cannot be restarted" in faulty.server.logs.text(MODEL)


def take_port(port: int) -> socket.socket:
    """Listen on the port of a process that is just exiting."""
    until_free = Retrying(stop=stop_after_delay(1), wait=wait_fixed(0.001))
    return until_free(socket.create_server, ("127.0.0.1", port))


def _text(log: Path) -> str:
    return log.read_text() if log.exists() else ""
