from collections.abc import Iterator

import pytest

from bench.timing import Timing, in_alternation, ratio


def test_each_is_called_in_turn_and_the_first_round_is_not_timed() -> None:
    calls: list[str] = []
    moments: Iterator[float] = iter([0, 1, 10, 12, 20, 23, 30, 34])
    timings = in_alternation(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")},
        rounds=2,
        clock=lambda: next(moments),
    )
    assert calls == ["a", "b"] * 3
    assert timings == [Timing("a", (1, 3)), Timing("b", (2, 4))]


def test_no_round_is_an_error() -> None:
    with pytest.raises(ValueError, match="rounds: expected at least 1, got 0"):
        in_alternation({}, rounds=0)


def test_the_median_and_the_quartiles_are_those_of_the_rounds() -> None:
    timing = Timing("a", (5.0, 1.0, 2.0, 4.0, 30.0))
    assert timing.median == 4
    assert timing.quartiles == (2, 5)


def test_a_ratio_is_taken_round_by_round() -> None:
    times = ratio(Timing("peer", (10.0, 60.0, 8.0)), Timing("ours", (1.0, 3.0, 1.0)))
    assert times.median == 10
    assert times.quartiles == (9, 15)


def test_a_ratio_of_other_rounds_is_an_error() -> None:
    with pytest.raises(ValueError, match="peer has 1 rounds and ours 2: time them together"):
        ratio(Timing("peer", (1.0,)), Timing("ours", (1.0, 2.0)))


@pytest.mark.parametrize(("within_s", "rounds"), [(0.0, 3), (40.0, 4), (41.0, 5), (1e9, 9)])
def test_no_round_begins_after_the_time_but_the_first_three(within_s: float, rounds: int) -> None:
    moments = iter(range(0, 1000, 10))
    done: list[int] = []
    [timing] = in_alternation(
        {"a": lambda: None},
        rounds=9,
        clock=lambda: next(moments),
        within_s=within_s,
        after_round=done.append,
    )
    assert len(timing.seconds) == rounds
    assert done == list(range(1, rounds + 1))
