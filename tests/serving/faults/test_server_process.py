"""The process of the ASGI server dies, hangs or loses its device: it is restarted."""

import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from tests.serving.asgi_server import running_asgi_server
from tests.serving.faults.faulty import (
    FaultyAsgi,
    error_code,
    is_open,
    wait_until,
)
from tests.serving.faults.injection import GOOD, LOST_DEVICE
from tests.serving.served import worker_of

pytestmark = pytest.mark.parametrize("server_name", ["asgi"], indirect=True)


def kill(faulty: FaultyAsgi) -> None:
    faulty.worker.send_signal(signal.SIGKILL)


def nothing(_: FaultyAsgi) -> None:
    """The forward pass hangs."""


@pytest.mark.parametrize("fault", [kill, nothing], ids=["kill -9", "endless"])
def test_requests_of_a_process_that_ends_fail_and_later_ones_wait_for_the_next(
    faulty: FaultyAsgi, fault: Callable[[FaultyAsgi], None]
) -> None:
    before = faulty.worker
    running = [faulty.hold(), faulty.submit(GOOD)]
    faulty.wait_for_queue(1)
    fault(faulty)
    for request in running:
        with pytest.raises(httpx.RemoteProtocolError, match="disconnected"):
            request.result()
    wait_until(faulty.is_healthy)
    assert faulty.worker != before
    assert faulty.send(GOOD).status_code == 200


def test_connections_made_during_a_restart_are_accepted(faulty: FaultyAsgi) -> None:
    """The supervisor holds the port; until the model is loaded, clients get a 503."""
    (faulty.gate / "load").unlink()
    kill(faulty)
    response = faulty.send(GOOD)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert error_code(response) == "overloaded"
    (faulty.gate / "load").touch()
    wait_until(faulty.is_healthy)


def test_a_process_that_lost_its_device_is_replaced(faulty: FaultyAsgi) -> None:
    before = faulty.worker
    try:
        failed = faulty.send(LOST_DEVICE)
        assert (failed.status_code, error_code(failed)) == (500, "internal")
    except httpx.RemoteProtocolError:
        pass  # the process has ended before its response was sent
    wait_until(lambda: not psutil.pid_exists(before.pid))
    wait_until(faulty.is_healthy)
    assert faulty.send(GOOD).status_code == 200
    assert "the device is lost; the server process exits" in faulty.main_log


def test_a_process_whose_supervisor_is_killed_ends(
    faulty: FaultyAsgi, shapes_mar: Path, tmp_path: Path
) -> None:
    with running_asgi_server(shapes_mar, log_dir=tmp_path / "logs") as server:
        server.wait_until_ready()
        process = worker_of(server)
        server.process.kill()
        wait_until(lambda: not process.is_running())
        assert not is_open(server.url)
    assert faulty.is_healthy()
