"""Comparisons: the same work by d2serve and by its baselines, once each per round, and ratios per
round. So whatever slows the machine for a while slows all implementations of a comparison."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from bench.plots import RatioPanel
from bench.report import Table, describe_machine, write_report

T = TypeVar("T")
Calls = dict[str, Callable[[], object]]
# Fewer would leave nothing to compute quartiles of.
MIN_ROUNDS = 3


@dataclass(frozen=True)
class Series:
    """Values of one implementation, one per round, and its peak memory in MB on the device, if
    known."""

    name: str
    values: tuple[float, ...]
    peak_mb: float | None = None

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of the rounds."""
        low, median, high = np.quantile(self.values, (0.25, 0.5, 0.75))
        return float(low), float(median), float(high)


def alternate(
    measures: Mapping[str, Callable[[], T]],
    rounds: int,
    after_round: Callable[[int], object] = lambda _: None,
    may_stop: Callable[[], bool] = lambda: False,
) -> dict[str, list[T]]:
    """Call each measure once per round, in the order given; `may_stop` ends the run early, but not
    before MIN_ROUNDS. Raises ValueError for less than one round."""
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
    within_s: float = math.inf,
    after_round: Callable[[int], object] = lambda _: None,
) -> list[Series]:
    """Time each call, until the GPU is done, once per round, in seconds, after one round that is
    not timed. No round starts after `within_s` seconds of timed calls, but the first MIN_ROUNDS."""
    taken: list[float] = []

    def timed(call: Callable[[], object]) -> float:
        start = clock()
        call()
        synchronize()
        taken.append(clock() - start)
        return taken[-1]

    for call in calls.values():
        call()
    synchronize()
    measures = {name: partial(timed, call) for name, call in calls.items()}
    values = alternate(measures, rounds, after_round, lambda: sum(taken) >= within_s)
    return [Series(name, tuple(seconds)) for name, seconds in values.items()]


def ratio(numerator: Series, denominator: Series) -> Series:
    """Quotients of two series, round by round. Raises ValueError where they differ in length, or a
    round of the denominator is 0."""
    if len(numerator.values) != len(denominator.values):
        counts = (f"{each.name} has {len(each.values)}" for each in (numerator, denominator))
        raise ValueError(f"rounds: {' and '.join(counts)}; run both in one comparison")
    if not all(denominator.values):
        raise ValueError(f"{denominator.name} has a round without a result; use longer rounds")
    pairs = zip(numerator.values, denominator.values, strict=True)
    return Series(numerator.name, tuple(above / below for above, below in pairs))


def synchronize() -> None:
    """Wait for the GPU, where one is in use and no CUDA graph is being captured."""
    if torch.cuda.is_initialized() and not torch.cuda.is_current_stream_capturing():
        torch.cuda.synchronize()


OURS, DETECTRON2 = "d2serve", "detectron2"
SECONDS = "s"
COLUMNS = ("benchmark", "case", "implementation", "median", "quartiles", "per s", "ratio")
TITLE = (
    "Medians and quartiles of alternating rounds, in ms where no unit is given. Ratio, per round: "
    "time of the row / time of the first row of its case, of rates the inverse; above 1 the first "
    "row is better"
)


class Comparison(NamedTuple):
    """Implementations to time together, by name, the first beside the others. One call processes
    `images`; `model` and `note` may be empty."""

    stage: str
    case: str
    calls: Mapping[str, Callable[[], object]]
    model: str = ""
    images: int = 1
    note: str = ""


@dataclass(frozen=True)
class Result:
    """Series of a comparison; seconds are shown as ms, with images per second."""

    stage: str
    case: str
    model: str
    images: int
    note: str
    series: tuple[Series, ...]
    unit: str = SECONDS
    higher_is_better: bool = False

    @property
    def title(self) -> str:
        """Model and case."""
        return f"{self.model} {self.case}" if self.model else self.case

    @property
    def ours(self) -> Series:
        """The first series."""
        return self.series[0]

    def ratio_of(self, series: Series) -> Series:
        """Compute the factor by which `ours` is better, per round."""
        if self.higher_is_better:
            return replace(ratio(self.ours, series), name=series.name)
        return ratio(series, self.ours)


def run_comparison(
    comparison: Comparison,
    rounds: int,
    within_s: float = float("inf"),
    after_round: Callable[[int], object] = lambda _: None,
) -> Result:
    """Time the implementations that fit into memory in alternation; see `time_alternating`."""
    peaks = {name: _peak_mb(call) for name, call in comparison.calls.items()}
    calls = {name: call for name, call in comparison.calls.items() if peaks[name] != math.inf}
    timed = time_alternating(calls, rounds, within_s=within_s, after_round=after_round)
    series = tuple(replace(each, peak_mb=peaks[each.name]) for each in timed)
    missing = [f"out of memory: {name}" for name in peaks if name not in calls]
    note = "; ".join(filter(None, (comparison.note, *missing)))
    facts = (comparison.stage, comparison.case, comparison.model, comparison.images)
    return Result(*facts, note, series)


def _peak_mb(run: Callable[[], object]) -> float | None:
    """Of a run on the GPU; infinite where its memory does not suffice, None without a GPU."""
    if not torch.cuda.is_initialized():
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        run()
        return torch.cuda.max_memory_allocated() / 1e6
    except torch.OutOfMemoryError:
        return math.inf


def write_results(
    path: Path,
    measured: Iterable[Result],
    notes: Sequence[str] = (),
    device: torch.device | None = None,
) -> None:
    """Write `path`.json, .md and .png: after Ctrl-C or a failure too, with the results so far."""
    machine, results = describe_machine(device), list[Result]()
    try:
        results.extend(measured)
    finally:
        _write(path, results, notes, machine)


def _write(
    path: Path, results: Sequence[Result], notes: Sequence[str], machine: dict[str, Any]
) -> None:
    rows = [row for each in results for row in _rows(each)]
    columns = (*COLUMNS, "peak MB") if torch.cuda.is_initialized() else COLUMNS
    table = Table(TITLE, columns, [row[: len(columns)] for row in rows])
    own = [(f"{each.stage} {each.title if each.model else ''}", each.note) for each in results]
    notes = [*dict.fromkeys(f"{name.strip()}: {note}" for name, note in own if note), *notes]
    ratios = {
        f"{each.stage}   {each.title}": [(one.name, *each.ratio_of(one).quartiles) for one in rest]
        for each in results
        if (rest := each.series[1:])
    }
    panel = RatioPanel("Ratio: right of 1x the first implementation is better", ratios)
    data = {"results": [asdict(each) for each in results]}
    write_report(path, [table], data, [panel] if ratios else [], notes, machine)


def _rows(result: Result) -> Iterator[tuple[str, ...]]:
    timed = result.unit == SECONDS
    scale, unit = (1e3, "") if timed else (1.0, f" {result.unit}")
    for each in result.series:
        low, median, high = (_digits(value * scale) for value in each.quartiles)
        rate = _digits(result.images / each.quartiles[1]) if timed else ""
        times = ""
        if each is not result.ours:
            least, middle, most = result.ratio_of(each).quartiles
            times = f"{middle:.3g} ({least:.3g}..{most:.3g})"
        row = (result.stage, result.title, each.name, f"{median}{unit}", f"{low}..{high}", rate)
        yield (*row, times, "" if each.peak_mb is None else f"{each.peak_mb:,.0f}")


def _digits(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.{1 if value >= 10 else 2}f}"
