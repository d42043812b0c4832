"""Forwards that fail: the picture at fault has its own error, its neighbours their answers."""

import httpx
import pytest

from tests.serving.faults.faulty import (
    FAULT,
    GOOD,
    NEVER_FITS,
    ONLY_TWO_FIT,
    TWO_FIT,
    Faulty,
    error_code,
    wait_until,
)
from tests.serving.traffic import images_run_together, npy_body, zeros

FAULTS = {FAULT: (500, "internal"), NEVER_FITS: (507, "out_of_memory")}


@pytest.mark.parametrize("side", FAULTS)
@pytest.mark.parametrize("route", ["/invocations", "/predictions/shapes"])
def test_a_fault_of_ours_has_its_status_and_says_nothing_of_the_inside(
    faulty: Faulty, http: httpx.Client, route: str, side: int
) -> None:
    response = npy_body(zeros(side)).post(http, faulty.server.url + route)
    assert (response.status_code, error_code(response)) == FAULTS[side]


def test_neighbours_of_a_fault_get_their_answers(faulty: Faulty) -> None:
    held = faulty.hold()
    sides = [FAULT, GOOD, NEVER_FITS, GOOD]
    answers = [faulty.ask_meanwhile(side) for side in sides]
    faulty.wait_for_queue(len(sides))
    faulty.let_go()
    assert [answer.result().status_code for answer in answers] == [500, 200, 507, 200]
    assert held.result().status_code == 200


def test_what_does_not_fit_together_runs_in_parts_and_the_size_is_remembered(
    faulty: Faulty,
) -> None:
    def times_short_of_memory() -> int:
        return faulty.server.logs.text("model_log.log").count(f"OutOfMemoryError: {ONLY_TWO_FIT}")

    before = times_short_of_memory()
    for _ in range(2):
        held = faulty.hold()
        answers = [faulty.ask_meanwhile(TWO_FIT) for _ in range(4)]
        faulty.wait_for_queue(len(answers))
        faulty.let_go()
        assert [images_run_together(answer.result()) for answer in answers] == [2] * 4
        assert held.result().status_code == 200
    wait_until(
        lambda: times_short_of_memory() > before
    )  # TorchServe writes its log in its own time
    assert times_short_of_memory() == before + 1
