"""Alternating rounds: every implementation runs once per round; ratios are computed per round.

So whatever slows the machine down for a while slows all implementations of a comparison.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch

T = TypeVar("T")
# Fewer would leave nothing to compute quartiles of.
MIN_ROUNDS = 3


@dataclass(frozen=True)
class Series:
    """Values of one implementation, one per round; `parts` are those of its parts, by name."""

    name: str
    values: tuple[float, ...]
    parts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Median of the rounds."""
        return float(np.median(self.values))

    @property
    def quartiles(self) -> tuple[float, float]:
        """Lower and upper quartile of the rounds."""
        low, high = np.quantile(self.values, (0.25, 0.75))
        return float(low), float(high)


def alternate(
    measures: Mapping[str, Callable[[], T]],
    rounds: int,
    after_round: Callable[[int], object] = lambda _: None,
    may_stop: Callable[[], bool] = lambda: False,
) -> dict[str, list[T]]:
    """Call each measure once per round, in the order given.

    Args:
        measures: by name.
        rounds: at least 1.
        after_round: receives the number of completed rounds.
        may_stop: ends the run early, but not before MIN_ROUNDS.

    Raises:
        ValueError: `rounds` is less than 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds: received {rounds}, expected at least 1")
    values: dict[str, list[T]] = {name: [] for name in measures}
    for done in range(1, rounds + 1):
        for name, measure in measures.items():
            values[name].append(measure())
        after_round(done)
        if done >= MIN_ROUNDS and may_stop():
            break
    return values


def time_alternating(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = perf_counter,
    *,
    within_s: float = math.inf,
    after_round: Callable[[int], object] = lambda _: None,
) -> list[Series]:
    """Time each call once per round, in seconds, after one round that is not timed.

    No round starts after `within_s` seconds of timed calls, except the first MIN_ROUNDS.
    """
    total = 0.0

    def timed(call: Callable[[], object]) -> Callable[[], float]:
        def measure() -> float:
            nonlocal total
            start = clock()
            call()
            seconds = clock() - start
            total += seconds
            return seconds

        return measure

    for call in calls.values():
        call()
    measures = {name: timed(call) for name, call in calls.items()}
    values = alternate(measures, rounds, after_round, lambda: total >= within_s)
    return [Series(name, tuple(seconds)) for name, seconds in values.items()]


def ratio(numerator: Series, denominator: Series) -> Series:
    """Quotients of two series, round by round.

    Raises:
        ValueError: the series differ in length, or a round of the denominator is 0.
    """
    if len(numerator.values) != len(denominator.values):
        counts = (f"{each.name} has {len(each.values)}" for each in (numerator, denominator))
        raise ValueError(f"rounds: {' and '.join(counts)}; run both in one comparison")
    if not all(denominator.values):
        raise ValueError(f"{denominator.name} has a round without a result; use longer rounds")
    pairs = zip(numerator.values, denominator.values, strict=True)
    return Series(numerator.name, tuple(above / below for above, below in pairs))


class PartClock:
    """Splits runs into parts, each of which ends where the next one starts.

    Attributes:
        laps: for each run, seconds by part.
    """

    def __init__(self) -> None:
        self.laps: list[dict[str, float]] = []
        self._last = 0.0

    def start(self) -> None:
        """Start a run."""
        self.laps.append({})
        self._last = perf_counter()

    def end_of(self, part: str) -> None:
        """Assign the time since the last call to this part."""
        synchronize()
        now = perf_counter()
        if self.laps:
            self.laps[-1][part] = self.laps[-1].get(part, 0.0) + now - self._last
        self._last = now

    def follow(self, model: Any) -> None:
        """Record the parts of a model that has Detectron2's module names, `resize` first."""
        model.backbone.register_forward_pre_hook(lambda *_: self.end_of("resize"))
        for part, module in {
            "backbone": model.backbone,
            "proposals": model.proposal_generator,
            "boxes": model.roi_heads.box_predictor,
            "masks": model.roi_heads,
        }.items():
            module.register_forward_hook(lambda *_, part=part: self.end_of(part))


def synchronize() -> None:
    """Wait for the GPU, where one is in use and no CUDA graph is being captured."""
    if torch.cuda.is_initialized() and not torch.cuda.is_current_stream_capturing():
        torch.cuda.synchronize()
