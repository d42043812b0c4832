"""Turns within one run, and what comes of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.timing import Ratio
from scripts.errors import CommandError


@dataclass(frozen=True)
class Result:
    """Ours beside another, measured in turns.

    Attributes:
        model: which model is served, and in which precision by ours.
        measured: what the values are, with their unit.
        beside: who the other is.
        ours: values of ours, one a round.
        theirs: values of the other in the same rounds.
        target: the ratio that is aimed for, in words.
        note: what else there is to know.
    """

    model: str
    measured: str
    beside: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    target: str
    note: str

    @property
    def ratio(self) -> Ratio:
        """Ours by theirs, round by round.

        Raises:
            CommandError: they have nothing to divide by, because a round was too short.
        """
        if not all(self.theirs):
            raise CommandError(
                f"{self.beside} answered nothing within a round; give --seconds more than it takes"
            )
        ratios = np.array(self.ours) / np.array(self.theirs)
        low, median, high = (float(value) for value in np.quantile(ratios, (0.25, 0.5, 0.75)))
        return Ratio(median, (low, high))


def take_turns(
    turns: Sequence[Callable[[], Any]], rounds: int, done: Callable[[int], None]
) -> list[tuple[Any, ...]]:
    """Each turn's measurements, one a round; all take their turn in each round, in the order given.

    Args:
        turns: each measures something.
        rounds: at least one.
        done: is told after each turn how many are done.

    Raises:
        ValueError: there is no round.
    """
    if rounds < 1:
        raise ValueError(f"rounds: expected at least 1, got {rounds}")
    values: list[list[Any]] = [[] for _ in turns]
    for _ in range(rounds):
        for turn, own in zip(turns, values, strict=True):
            own.append(turn())
            done(sum(map(len, values)))
    return [tuple(own) for own in values]
