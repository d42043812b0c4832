from pathlib import Path

import pytest

from bench.load.answers import Answer
from bench.soak.outcomes import (
    FAILED,
    FAILED_BY_RESTART,
    LEFT,
    LOST,
    REFUSED,
    RIGHT,
    WRONG,
    WRONGLY_REFUSED,
    doubled,
    judge,
)
from tests.bench.soak.made_up import KINDS, RESTART

ERROR = b'{"error": {"code": "%s", "message": "a", "hint": "b"}}'
BODIES = {
    "fine": b"fine",
    "other": b"other",
    "bad_request": ERROR % b"bad_request",
    "too_large": ERROR % b"too_large",
    "internal": ERROR % b"internal",
    "own words": b'{"code": 500, "type": "a", "message": "b"}',
    "": b"",
}
CALM, RESTARTING = 10.0, 151.0


@pytest.fixture
def bodies(tmp_path: Path) -> Path:
    for name, body in BODIES.items():
        if name:
            (tmp_path / name).write_bytes(body)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "due", "status", "body", "outcome"),
    [
        ("good", CALM, 200, "fine", RIGHT),
        ("good", CALM, 200, "other", WRONG),
        ("good", CALM, 400, "bad_request", WRONG),
        ("good", CALM, 500, "internal", FAILED),
        ("good", CALM, 503, "internal", FAILED),
        ("good", CALM, 0, "", LOST),
        ("good", RESTARTING, 200, "fine", RIGHT),
        ("good", RESTARTING, 200, "other", WRONG),
        ("good", RESTARTING, 500, "internal", FAILED_BY_RESTART),
        ("good", RESTARTING, 500, "own words", FAILED),
        ("good", RESTARTING, 0, "", LOST),
        ("bad", CALM, 400, "bad_request", REFUSED),
        ("bad", CALM, 400, "too_large", WRONGLY_REFUSED),
        ("bad", CALM, 413, "bad_request", WRONGLY_REFUSED),
        ("bad", CALM, 200, "fine", WRONGLY_REFUSED),
        ("bad", CALM, 500, "internal", FAILED),
        ("bad", CALM, 0, "", LOST),
        ("bad", RESTARTING, 500, "internal", FAILED_BY_RESTART),
        ("leaves", CALM, 0, "", LEFT),
    ],
)
def test_what_an_answer_is_worth(
    bodies: Path, name: str, due: float, status: int, body: str, outcome: str
) -> None:
    answer = Answer(due, due + 0.5, status, status > 0, name, body)
    [found] = judge([answer], KINDS, [RESTART], bodies)
    assert found.outcome == outcome
    assert bool(found.reason) == (outcome not in (RIGHT, REFUSED, LEFT))
    assert found.hostile == (name != "good")


def test_a_body_that_breaks_off_is_lost(bodies: Path) -> None:
    answer = Answer(CALM, CALM + 1, 200, False, "good", "fine")
    [found] = judge([answer], KINDS, [], bodies)
    assert found.outcome == LOST


def test_a_restart_is_for_those_who_wait_in_it(bodies: Path) -> None:
    begin, end = RESTART.killed_at, RESTART.back_at
    times = [(begin - 2, begin - 1), (begin - 1, begin + 1), (begin + 1, end + 1)]
    times += [(begin - 1, end + 1), (end + 1, end + 2)]
    found = judge(
        [Answer(due, done, 500, True, "good", "internal") for due, done in times],
        KINDS,
        [RESTART],
        bodies,
    )
    assert [each.restart for each in found] == [False, True, True, True, False]
    never_answered = Answer(begin - 1, None, 0, False, "good", "")
    [found_lost] = judge([never_answered], KINDS, [RESTART], bodies)
    assert found_lost.outcome == LOST


def test_second_answers_are_bytes_that_nobody_asked_for_and_ids_that_come_again() -> None:
    rows = [Answer(0, 1, 200, True, "good", "fine", request_id) for request_id in ("a", "b", "")]
    assert doubled(rows) == 0
    assert doubled([*rows, rows[0]]) == 1
    assert doubled([*rows, rows[2]]) == 0
    assert doubled([*rows, Answer(0, 1, 200, True, "good", "fine", "c", surplus=7)]) == 1
