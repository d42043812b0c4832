"""Failing forward passes: only the failing image gets an error."""

import httpx
import pytest

from d2serve.servers.torchserve.launcher.server import MODEL
from tests.serving.faults.faulty import Faulty, error_code, wait_until
from tests.serving.faults.injection import (
    EXCEEDS_MEMORY,
    FAULT,
    GOOD,
    MAX_TWO_PER_BATCH,
    ONLY_TWO_FIT,
)
from tests.serving.traffic import images_run_together, npy_body, zeros

FAULTS = {FAULT: (500, "internal"), EXCEEDS_MEMORY: (507, "out_of_memory")}


@pytest.mark.parametrize("side", FAULTS)
@pytest.mark.parametrize("route", ["/invocations", "/predictions/shapes"])
def test_a_server_error_has_its_status_and_reveals_no_internals(
    faulty: Faulty, http: httpx.Client, route: str, side: int
) -> None:
    response = npy_body(zeros(side)).post(http, faulty.served.url + route)
    assert (response.status_code, error_code(response)) == FAULTS[side]


def test_other_requests_of_a_failing_batch_get_their_responses(faulty: Faulty) -> None:
    held = faulty.hold()
    sides = [FAULT, GOOD, EXCEEDS_MEMORY, GOOD]
    responses = [faulty.submit(side) for side in sides]
    faulty.wait_for_queue(len(sides))
    faulty.release()
    assert [response.result().status_code for response in responses] == [500, 200, 507, 200]
    assert held.result().status_code == 200


def test_a_batch_that_does_not_fit_is_split_and_the_size_is_remembered(
    faulty: Faulty,
) -> None:
    def out_of_memory_errors() -> int:
        return faulty.logs.text(MODEL).count(f"OutOfMemoryError: {ONLY_TWO_FIT}")

    before = out_of_memory_errors()
    for _ in range(2):
        held = faulty.hold()
        responses = [faulty.submit(MAX_TWO_PER_BATCH) for _ in range(4)]
        faulty.wait_for_queue(len(responses))
        faulty.release()
        assert [images_run_together(response.result()) for response in responses] == [2] * 4
        assert held.result().status_code == 200
    wait_until(lambda: out_of_memory_errors() > before)  # logs are written with a delay
    assert out_of_memory_errors() == before + 1
