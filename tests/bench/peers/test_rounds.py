import pytest

from bench.peers.rounds import Result, take_turns
from d2serve.errors import CommandError


def result(ours: tuple[float, ...], theirs: tuple[float, ...]) -> Result:
    return Result("shapes fp32", "requests/s", "naive", ours, theirs, "at least 10", "")


def test_each_takes_its_turn_in_each_round() -> None:
    calls: list[str] = []
    told: list[int] = []

    def turn(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    values = take_turns([lambda: turn("ours"), lambda: turn("peer")], 3, told.append)
    assert calls == ["ours", "peer"] * 3
    assert values == [(1, 3, 5), (2, 4, 6)]
    assert told == [1, 2, 3, 4, 5, 6]


def test_no_round_is_an_error() -> None:
    with pytest.raises(ValueError, match="rounds: expected at least 1, got 0"):
        take_turns([], 0, print)


def test_a_ratio_is_that_of_one_round() -> None:
    # The machine was half as quick in the second round, for both.
    ratio = result((40.0, 20.0, 44.0), (4.0, 2.0, 4.0)).ratio
    assert ratio.median == 10
    assert ratio.quartiles == (10, 10.5)


def test_a_round_without_an_answer_says_what_to_do() -> None:
    with pytest.raises(CommandError, match="naive answered nothing within a round; give --seconds"):
        _ = result((4.0, 4.0), (1.0, 0.0)).ratio
