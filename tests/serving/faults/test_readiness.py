"""The health of servers from their start to their shutdown."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.launcher.server import (
    MODEL,
    SERVER,
    Server,
    running_server,
)
from tests.serving.archives import HANDLER, alter, unpack
from tests.serving.faults.conftest import running_faulty_asgi
from tests.serving.faults.faulty import (
    QUEUE,
    TIMEOUT_S,
    FaultyAsgi,
    FaultyTorchServe,
    error_code,
    get,
    is_open,
    wait_until,
)
from tests.serving.faults.injection import GOOD, HELD, faulty_handler


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


def test_health_of_torchserve_from_start_to_shutdown(
    folder: Path, tmp_path: Path, stack: ExitStack
) -> None:
    ports, logs = Ports.free(), tmp_path / "logs"
    url = f"http://{LOOPBACK}:{ports.inference}"
    pool = stack.enter_context(ThreadPoolExecutor(1))

    def start() -> Server:
        running = running_server(folder, log_dir=logs, ports=ports, with_proxy=True)
        return stack.enter_context(running)

    # Unreachable before a model is loaded.
    starting = pool.submit(start)
    wait_until(lambda: "Torch worker started" in _text(logs / "model_log.log"))
    assert not is_open(url)
    (tmp_path / "load").touch()
    faulty = FaultyTorchServe(tmp_path, starting.result())
    assert faulty.is_healthy()

    # Unhealthy while its last worker cannot start.
    good_handler = (folder / HANDLER).read_text()
    (folder / HANDLER).write_text("import nothing_like_it")
    faulty.worker.kill()
    wait_until(lambda: faulty.server.logs.text(SERVER).count("Retry worker:") >= 2)
    rejected = get(f"{faulty.server.url}/ping")
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
    wait_until(lambda: not is_open(url))
    assert not stopping.done()
    faulty.release()
    assert [response.result().status_code for response in running] == [200] * 13
    stopping.result()
    assert faulty.server.process.returncode is not None


def test_health_of_the_asgi_server_from_start_to_shutdown(
    shapes_mar: Path, tmp_path: Path, stack: ExitStack
) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    server = stack.enter_context(running_faulty_asgi(shapes_mar, gate, tmp_path))
    faulty, url = FaultyAsgi(gate, server), server.url

    # Alive and not ready before the model is loaded.
    wait_until(lambda: is_open(url))
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as http:
        assert http.get(f"{url}/v2/health/live").json() == {"live": True}
        for path in ("/ping", "/v2/health/ready", "/v2/models/shapes/ready", "/v1/models/shapes"):
            response = http.get(f"{url}{path}")
            assert response.status_code == 503, path
            assert response.headers["retry-after"] == "2"
    rejected = faulty.send(GOOD)
    assert (rejected.status_code, error_code(rejected)) == (503, "overloaded")
    assert rejected.json()["error"]["message"] == "the model is loading"
    (gate / "load").touch()
    server.wait_until_ready()
    assert faulty.send(GOOD).status_code == 200

    # On shutdown it completes running and queued requests and rejects new ones.
    running = [faulty.hold(), *(faulty.submit(GOOD) for _ in range(QUEUE))]
    faulty.wait_for_queue(QUEUE)
    server.process.terminate()
    wait_until(lambda: not faulty.is_healthy())
    assert server.process.poll() is None
    faulty.release()
    assert [response.result().status_code for response in running] == [200] * (1 + QUEUE)
    assert server.process.wait(TIMEOUT_S) == 0
    assert not is_open(url)


def test_torchserve_whose_port_is_lost_serves_again_when_it_is_free(
    folder: Path, tmp_path: Path, stack: ExitStack
) -> None:
    (tmp_path / "load").touch()
    short_timeout = (
        "import d2serve.servers.torchserve.proxy.supervisor as supervisor\n"
        "supervisor.RESTART_TIMEOUT_S = 2\n"
    )
    alter(folder, {HANDLER: short_timeout + (folder / HANDLER).read_text()})
    running = running_server(folder, log_dir=tmp_path / "logs", with_proxy=True)
    faulty = FaultyTorchServe(tmp_path, stack.enter_context(running))
    worker = faulty.worker
    # Another program takes the port before the worker restarts the proxy.
    worker.suspend()
    faulty.proxy.kill()
    with take_port(faulty.server.ports.inference):
        worker.resume()
        wait_until(lambda: not worker.is_running())
        wait_until(
            lambda: "the proxy cannot be restarted; the worker exits" in faulty.logs.text(MODEL)
        )
    wait_until(faulty.is_healthy)
    assert faulty.send(GOOD).status_code == 200


def take_port(port: int) -> socket.socket:
    """Listen on the port of a process that is just exiting."""
    until_free = Retrying(stop=stop_after_delay(TIMEOUT_S), wait=wait_fixed(0.001))
    return until_free(socket.create_server, ("127.0.0.1", port))


def _text(log: Path) -> str:
    return log.read_text() if log.exists() else ""
