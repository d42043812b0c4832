from collections.abc import Sequence
from dataclasses import replace

import pytest

from bench.load.cpu import WORKER
from bench.soak.growth import Growth, growths
from bench.soak.memory import FRONT_DOOR, JAVA
from bench.soak.outcomes import (
    FAILED,
    FAILED_BY_RESTART,
    LOST,
    WRONG,
    WRONGLY_REFUSED,
    Judged,
)
from bench.soak.restarts import NEVER, Restart
from bench.soak.verdict import Criterion, verdict
from tests.bench.soak.made_up import RESTART, SECONDS, judged, right, samples, with_one

CALM = growths(samples(), [RESTART])


def not_held(
    rows: Sequence[Judged],
    restarts: Sequence[Restart] = (RESTART,),
    growth: Sequence[Growth] = CALM,
) -> list[str]:
    criteria = verdict(rows, restarts, 1, growth, SECONDS)
    assert all(isinstance(row, Criterion) and row.wanted and row.measured for row in criteria)
    return [row.name for row in criteria if not row.held]


def test_all_criteria_hold_for_a_server_without_faults() -> None:
    assert not_held(judged()) == []
    # A worker that is killed takes some requests with it.
    assert not_held(with_one(FAILED_BY_RESTART)) == []


@pytest.mark.parametrize(
    ("outcome", "hostile", "name"),
    [
        (WRONG, False, "wrong answers to good requests"),
        (WRONGLY_REFUSED, True, "hostile requests not refused as they have to be"),
        (LOST, False, "lost requests"),
        (LOST, True, "lost requests"),
        (FAILED, False, "5xx outside the restarts, or not in the contract's form"),
    ],
)
def test_one_fault_is_enough(outcome: str, hostile: bool, name: str) -> None:
    assert not_held(with_one(outcome, hostile=hostile)) == [name]


def test_a_second_answer_is_enough() -> None:
    first, *others = judged()
    doubled = replace(first, answer=first.answer._replace(surplus=9))
    assert not_held([doubled, *others]) == ["second answers"]
    assert not_held([first, first, *others]) == ["second answers"]


def test_a_worker_has_to_come_back() -> None:
    name = "killed workers that are back"
    assert not_held(judged(), [Restart(RESTART.killed_at, NEVER)]) == [name]
    assert not_held(judged(), []) == [name]


@pytest.mark.parametrize(
    ("slow", "names"),
    [
        (range(2000, 2020), ["worst minute's"]),
        (range(600, 3000), ["p99 /", "worst minute's"]),
        # In the first minute, and where a restart holds it up.
        (range(600), []),
        (range(1500, 1540), []),
    ],
)
def test_latency_may_not_double(slow: range, names: list[str]) -> None:
    rows = [
        right(row.answer.due, 1.2) if 10 * row.answer.due in slow and row.right else row
        for row in judged()
    ]
    found = not_held(rows)
    assert [name.startswith(begin) for name, begin in zip(found, names, strict=True)] == [
        True
    ] * len(names)


@pytest.mark.parametrize("kind", [JAVA, FRONT_DOOR])
def test_memory_may_not_grow(kind: str) -> None:
    assert not_held(judged(), growth=growths(samples(0.04, kind), [RESTART])) == []
    grown = not_held(judged(), growth=growths(samples(0.08, kind), [RESTART]))
    assert grown == [f"memory's growth: {kind}"]
    everything = not_held(judged(), growth=growths(samples(0.4, kind), [RESTART]))
    assert everything == ["memory's growth: the whole server", f"memory's growth: {kind}"]


def test_a_worker_may_not_grow_within_its_life() -> None:
    grown = growths(samples(0.3, WORKER), [RESTART])
    assert f"memory's growth: {WORKER}" in not_held(judged(), growth=grown)


def test_nothing_measured_is_nothing_shown() -> None:
    names = not_held([], [], [])
    assert "right answers to good requests" in names
    assert "memory's growth" in names
    assert [name for name in names if name.startswith(("p99", "worst"))]
