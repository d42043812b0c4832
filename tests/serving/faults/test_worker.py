"""Workers that die, hang or lose their device: who runs in them gets an error, nobody else does."""

import signal
from collections.abc import Callable

import pytest

from tests.serving.faults.faulty import GOOD, LOST_DEVICE, Faulty, error_code, is_open, wait_until


def kill(faulty: Faulty) -> None:
    faulty.worker.send_signal(signal.SIGKILL)


def stop(faulty: Faulty) -> None:
    """It no longer answers, and TorchServe has to notice."""
    faulty.worker.send_signal(signal.SIGSTOP)


def nothing(_: Faulty) -> None:
    """It hangs in the forward already."""


@pytest.mark.parametrize("fault", [kill, stop, nothing], ids=["kill -9", "SIGSTOP", "endless"])
def test_who_runs_gets_a_500_and_who_waits_an_answer(
    faulty: Faulty, fault: Callable[[Faulty], None]
) -> None:
    before = faulty.worker
    running = faulty.hold()
    waiting = [faulty.ask_meanwhile(GOOD) for _ in range(2)]
    faulty.wait_for_queue(2)
    fault(faulty)
    failed = running.result()
    assert failed.status_code == 500
    assert error_code(failed) == "internal"
    wait_until(lambda: not faulty.is_healthy())
    assert [answer.result().status_code for answer in waiting] == [200, 200]
    wait_until(faulty.is_healthy)
    assert faulty.worker != before


def test_a_lost_device_ends_the_worker_and_the_next_one_serves(faulty: Faulty) -> None:
    before = faulty.worker
    failed = faulty.ask(LOST_DEVICE)
    assert failed.status_code == 500
    assert error_code(failed) == "internal"
    assert faulty.ask(GOOD).status_code == 200
    assert faulty.worker != before
    assert "the device is lost, so this worker ends" in faulty.server.logs.text("model_log.log")


def test_a_front_door_that_dies_is_opened_again(faulty: Faulty) -> None:
    """First one that a worker before this one may have opened, then this worker's own."""
    worker = faulty.worker
    for _ in range(2):
        faulty.relay.kill()
        wait_until(lambda: is_open(faulty.server.ports) and faulty.is_healthy())
        assert faulty.ask(GOOD).status_code == 200
    assert faulty.worker == worker
