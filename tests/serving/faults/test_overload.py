"""More requests than the server can process."""

import time

import pytest

from tests.serving.faults.faulty import BATCH, QUEUE, Faulty, error_code
from tests.serving.faults.injection import GOOD

DEADLINE_S = 2.0


def test_requests_beyond_the_queue_are_rejected_at_once_and_queued_ones_are_processed(
    faulty: Faulty,
) -> None:
    held = faulty.hold()
    queued = [faulty.submit(GOOD) for _ in range(QUEUE)]
    faulty.wait_for_queue(QUEUE)
    for _ in range(3):
        rejected = faulty.send(GOOD)
        assert rejected.status_code == 503
        assert int(rejected.headers["retry-after"]) >= 1
        assert error_code(rejected) == "overloaded"
    assert not held.done()
    faulty.release()
    assert [response.result().status_code for response in (held, *queued)] == [200] * (1 + QUEUE)
    assert faulty.send(GOOD).status_code == 200


def test_a_request_past_its_deadline_does_not_run(faulty: Faulty) -> None:
    held = faulty.hold()
    expired = faulty.submit(GOOD, {"X-D2serve-Timeout-Ms": str(1000 * DEADLINE_S)})
    in_time = faulty.submit(GOOD, {"X-D2serve-Timeout-Ms": "90000"})
    faulty.wait_for_queue(2)
    time.sleep(DEADLINE_S)
    faulty.release()
    rejected = expired.result()
    assert rejected.status_code == 503
    assert int(rejected.headers["retry-after"]) >= 1
    assert error_code(rejected) == "overloaded"
    assert f"waited longer than {DEADLINE_S:g} s" in rejected.text
    assert "forward;dur=0.00" in rejected.headers["server-timing"]
    processed = in_time.result()
    assert processed.status_code == 200
    assert 'batch;desc="1"' in processed.headers["server-timing"]
    assert held.result().status_code == 200


@pytest.mark.parametrize("server_name", ["torchserve"], indirect=True)
def test_a_running_batch_does_not_occupy_torchserves_queue(faulty: Faulty) -> None:
    """The worker takes its batch out of the queue, so the server accepts one batch more."""
    held = faulty.hold()
    queued = [faulty.submit(GOOD) for _ in range(QUEUE)]
    faulty.wait_for_queue(QUEUE)
    faulty.release()
    responses = [response.result() for response in (held, *queued)]
    assert all(response.status_code == 200 for response in responses)
    assert BATCH < 1 + QUEUE
