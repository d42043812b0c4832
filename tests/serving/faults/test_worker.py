"""Workers of TorchServe that die, hang or lose their device: only their running requests fail."""

import signal
from collections.abc import Callable

import pytest

from tests.serving.faults.faulty import FaultyTorchServe, error_code, is_open, wait_until
from tests.serving.faults.injection import GOOD, LOST_DEVICE

pytestmark = pytest.mark.parametrize("server_name", ["torchserve"], indirect=True)


def kill(faulty: FaultyTorchServe) -> None:
    faulty.worker.send_signal(signal.SIGKILL)


def stop(faulty: FaultyTorchServe) -> None:
    """TorchServe must detect a worker that stops responding."""
    faulty.worker.send_signal(signal.SIGSTOP)


def nothing(_: FaultyTorchServe) -> None:
    """The worker hangs in the forward pass."""


@pytest.mark.parametrize("fault", [kill, stop, nothing], ids=["kill -9", "SIGSTOP", "endless"])
def test_running_requests_get_a_500_and_queued_ones_their_responses(
    faulty: FaultyTorchServe, fault: Callable[[FaultyTorchServe], None]
) -> None:
    before = faulty.worker
    running = faulty.hold()
    queued = [faulty.submit(GOOD) for _ in range(2)]
    faulty.wait_for_queue(2)
    fault(faulty)
    failed = running.result()
    assert failed.status_code == 500
    assert error_code(failed) == "internal"
    wait_until(lambda: not faulty.is_healthy())
    assert [response.result().status_code for response in queued] == [200, 200]
    wait_until(faulty.is_healthy)
    assert faulty.worker != before


def test_a_worker_that_lost_its_device_is_replaced(faulty: FaultyTorchServe) -> None:
    before = faulty.worker
    failed = faulty.send(LOST_DEVICE)
    assert failed.status_code == 500
    assert error_code(failed) == "internal"
    assert faulty.send(GOOD).status_code == 200
    assert faulty.worker != before
    assert "the device is lost; the worker exits" in faulty.server.logs.text("model_log.log")


def test_a_proxy_process_that_dies_is_restarted(faulty: FaultyTorchServe) -> None:
    """First one that an earlier worker may have started, then this worker's own."""
    worker = faulty.worker
    for _ in range(2):
        faulty.proxy.kill()
        wait_until(lambda: is_open(faulty.server.url) and faulty.is_healthy())
        assert faulty.send(GOOD).status_code == 200
    assert faulty.worker == worker
