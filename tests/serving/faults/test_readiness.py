"""When a server with a front door is healthy, and how it stops."""

import socket
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from d2serve.servers.torchserve.launcher.ports import Ports
from d2serve.servers.torchserve.launcher.server import (
    MODEL,
    SERVER,
    Server,
    ServerError,
    running_server,
)
from d2serve.serving.integrity import SUMS_FILE
from tests.serving.faults.faulty import GOOD, HELD, Faulty, is_open, service, wait_until


@pytest.fixture
def folder(shapes_mar: Path, tmp_path: Path) -> Path:
    """An unpacked archive whose worker loads once the gate's file `load` is there."""
    folder = tmp_path / "shapes"
    with zipfile.ZipFile(shapes_mar) as archive:
        archive.extractall(folder)
    (folder / SUMS_FILE).unlink()
    waits = f"while not (Path({str(tmp_path)!r}) / 'load').exists():\n    time.sleep(0.02)\n"
    (folder / "handler.py").write_text(service(tmp_path) + waits)
    return folder


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_from_the_start_to_the_end(folder: Path, tmp_path: Path, stack: ExitStack) -> None:
    ports, logs = Ports.free(), tmp_path / "logs"
    pool = stack.enter_context(ThreadPoolExecutor(1))

    def start() -> Server:
        opened = running_server(folder, log_dir=logs, ports=ports, front_door=True)
        return stack.enter_context(opened)

    # Not before a model is loaded.
    starting = pool.submit(start)
    wait_until(lambda: "Torch worker started" in _text(logs / "model_log.log"))
    assert not is_open(ports)
    (tmp_path / "load").touch()
    faulty = Faulty(starting.result(), tmp_path)
    assert faulty.is_healthy()

    # Not while its last worker cannot start.
    good_service = (folder / "handler.py").read_text()
    (folder / "handler.py").write_text("import nothing_like_it")
    faulty.worker.kill()
    wait_until(lambda: faulty.server.logs.text(SERVER).count("Retry worker:") >= 2)
    refused = httpx.get(f"{faulty.server.url}/ping", trust_env=False)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    (folder / "handler.py").write_text(good_service)
    assert faulty.ask(GOOD).status_code == 200
    assert faulty.is_healthy()

    # Told to stop, it answers what runs and waits, and refuses what is new.
    for word in ("begun", "open"):
        (tmp_path / word).unlink(missing_ok=True)
    running = [faulty.ask_meanwhile(HELD)]
    wait_until(lambda: (tmp_path / "begun").exists())
    running += [faulty.ask_meanwhile(GOOD) for _ in range(12)]
    faulty.wait_for_queue(12)
    stopping = pool.submit(faulty.server.stop)
    wait_until(lambda: not is_open(ports))
    assert not stopping.done()
    faulty.let_go()
    assert [answer.result().status_code for answer in running] == [200] * 13
    stopping.result()
    assert faulty.server.process.returncode is not None


def test_a_server_that_nobody_can_reach_ends(
    folder: Path, tmp_path: Path, stack: ExitStack
) -> None:
    (tmp_path / "load").touch()
    impatient = "import handler.lifecycle.kept_relay as kept\nkept.REOPENING_S = 2\n"
    (folder / "handler.py").write_text(impatient + (folder / "handler.py").read_text())
    opened = running_server(folder, log_dir=tmp_path / "logs", front_door=True)
    faulty = Faulty(stack.enter_context(opened), tmp_path)
    relay = faulty.relay
    relay.kill()
    # Somebody else takes the port before the worker can.
    stack.enter_context(taken(faulty.server.ports.inference))
    with pytest.raises(ServerError, match="ended on its own"):
        faulty.server.wait_until_gone()
    assert "the front door cannot be opened again" in faulty.server.logs.text(MODEL)


def taken(port: int) -> socket.socket:
    """A port of a process that ends at this moment."""
    until_free = Retrying(stop=stop_after_delay(1), wait=wait_fixed(0.001))
    return until_free(socket.create_server, ("127.0.0.1", port))


def _text(log: Path) -> str:
    return log.read_text() if log.exists() else ""
