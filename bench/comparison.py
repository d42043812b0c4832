"""Comparisons: the same work by d2serve and by its baselines, as a table and as plots."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.plots import BarPanel, Panel, RatioPanel
from bench.report import Table, digits
from bench.timing import Series, ratio, time_alternating

OURS = "d2serve"
DETECTRON2 = "detectron2"
SECONDS = "s"
COLUMNS = ("benchmark", "case", "implementation", "median", "quartiles", "per s", "ratio", "target")
TITLE = (
    "Medians and quartiles of alternating rounds, in ms where no unit is given. Ratio, per round: "
    "time of the row / time of the first row of its case, or of rates the inverse; above 1 the "
    "first row is faster"
)


@dataclass(frozen=True)
class Implementation:
    """One way to do the work; `laps` grows by one with each run: seconds by part, if known."""

    run: Callable[[], object]
    laps: Sequence[Mapping[str, float]] = ()


@dataclass(frozen=True)
class Comparison:
    """Implementations to time together, the first of which the others are compared with.

    `images` are the images that one run processes; `model` and `note` may be empty.
    """

    stage: str
    case: str
    implementations: Mapping[str, Implementation]
    model: str = ""
    images: int = 1
    note: str = ""


@dataclass(frozen=True)
class Result:
    """Series of a comparison; `unit` is "s", or that of values of which higher ones are better."""

    stage: str
    case: str
    model: str
    images: int
    note: str
    series: tuple[Series, ...]
    unit: str = SECONDS
    target: str = ""

    @property
    def title(self) -> str:
        """Model and case."""
        return f"{self.model} {self.case}".strip()

    @property
    def ours(self) -> Series:
        """The series that the others are compared with."""
        return self.series[0]

    def ratio_of(self, series: Series) -> Series:
        """How many times faster `ours` is, per round."""
        if self.unit.startswith(SECONDS):
            return ratio(series, self.ours)
        return replace(ratio(self.ours, series), name=series.name)


def run_comparison(
    comparison: Comparison,
    rounds: int,
    within_s: float = float("inf"),
    after_round: Callable[[int], object] = lambda _: None,
) -> Result:
    """Time the implementations in alternation; see `time_alternating`."""
    calls = {name: each.run for name, each in comparison.implementations.items()}
    timed = time_alternating(calls, rounds, within_s=within_s, after_round=after_round)
    series = tuple(
        replace(each, parts=_parts(comparison.implementations[each.name].laps, len(each.values)))
        for each in timed
    )
    facts = (comparison.stage, comparison.case, comparison.model, comparison.images)
    return Result(*facts, comparison.note, series)


def _parts(laps: Sequence[Mapping[str, float]], rounds: int) -> dict[str, tuple[float, ...]]:
    """Of the last rounds: those before were not timed."""
    timed = laps[len(laps) - rounds :] if laps else []
    names = dict.fromkeys(name for lap in timed for name in lap)
    return {name: tuple(lap.get(name, 0.0) for lap in timed) for name in names}


def table_of(results: Sequence[Result]) -> Table:
    """A row for each series, and for each part that `ours` has too."""
    rows = [row for result in results for each in (result, *_of_parts(result)) for row in _rows(each)]
    return Table(TITLE, COLUMNS, rows)


def notes_of(results: Sequence[Result]) -> list[str]:
    """Notes of the results, each once."""
    notes = [
        f"{each.stage}{f' {each.title}' if each.model else ''}: {each.note}"
        for each in results
        if each.note
    ]
    return list(dict.fromkeys(notes))


def panels_of(results: Sequence[Result]) -> list[Panel]:
    """Bars of the parts for each stage and model, then the ratios of all baselines."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.ours.parts:
            groups.setdefault((result.stage, result.model), []).append(result)
    panels: list[Panel] = [_bars(stage, model, own) for (stage, model), own in groups.items()]
    compared = [result for result in results if len(result.series) > 1]
    rows = [(f"{each.stage}   {each.title}", _ratios(each)) for each in compared]
    title = f"Ratio to {OURS}: right of 1x the other implementation is slower"
    return [*panels, RatioPanel(title, rows)] if rows else panels


def _bars(stage: str, model: str, results: Sequence[Result]) -> BarPanel:
    rows = []
    for result in results:
        scale = 1e3 / result.images
        for each in result.series:
            parts = {name: float(np.median(part)) * scale for name, part in each.parts.items()}
            rows.append((f"{result.case}   {each.name}", parts, each.median * scale))
    return BarPanel(f"{stage}, {model}: ms per image; the line marks the whole", rows)


def _ratios(result: Result) -> list[tuple[str, float, float, float]]:
    ratios = [result.ratio_of(each) for each in result.series[1:]]
    return [(each.name, each.median, *each.quartiles) for each in ratios]


def _of_parts(result: Result) -> Iterator[Result]:
    for part in result.ours.parts:
        series = tuple(
            Series(each.name, each.parts[part])
            for each in result.series
            if any(each.parts.get(part, ()))
        )
        if series and series[0].name == result.ours.name and all(series[0].values):
            yield replace(result, case=f"  {part}", model="", series=series)


def _rows(result: Result) -> Iterator[tuple[str, ...]]:
    scale, unit = (1e3, "") if result.unit == SECONDS else (1.0, f" {result.unit}")
    for each in result.series:
        low, high = each.quartiles
        row = (result.stage, result.title if result.model else result.case, each.name)
        rate = digits(result.images / each.median) if result.unit == SECONDS else ""
        row += (f"{digits(each.median * scale)}{unit}",)
        row += (f"{digits(low * scale)}..{digits(high * scale)}", rate)
        if each is result.ours:
            yield (*row, "", "")
        else:
            times = result.ratio_of(each)
            low, high = times.quartiles
            yield (*row, f"{times.median:.3g} ({low:.3g}..{high:.3g})", result.target)
