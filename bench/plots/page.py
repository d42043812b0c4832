"""The plot of a run: where whole requests spend their time, and how much longer peers take."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.contest import Result
from bench.machine import summary
from bench.plots.bars import draw_bars
from bench.plots.dots import draw_dots
from bench.plots.style import DPI, STYLE
from bench.results import Run

WIDTH, ROW_HEIGHT, TITLE_HEIGHT = 12.0, 0.24, 0.4
# What a panel's title and axis take.
ROWS_AROUND = 3.0

Draw: TypeAlias = Callable[[Axes, Sequence[Result]], None]
Panel: TypeAlias = tuple[Draw, Sequence[Result]]


def plot_run(run: Run, path: Path) -> None:
    """Writes the PNG: for each stage and model bars of its parts, then dots of all peers."""
    panels: list[Panel] = [
        (draw_bars, results) for results in _by_stage_and_model(run.results) if results
    ]
    compared = [result for result in run.results if result.peers]
    panels += [(draw_dots, compared)] if compared else []
    heights = [_rows(draw, results) + ROWS_AROUND for draw, results in panels]
    with mpl.rc_context(STYLE):
        size = (WIDTH, max(1, sum(heights)) * ROW_HEIGHT + TITLE_HEIGHT)
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(summary(run.machine), fontsize=8, x=0.01, ha="left")
        grid = figure.add_gridspec(max(1, len(panels)), 1, height_ratios=heights or None)
        for index, (draw, results) in enumerate(panels):
            draw(figure.add_subplot(grid[index]), results)
        figure.savefig(path, dpi=DPI)


def _by_stage_and_model(results: Sequence[Result]) -> list[list[Result]]:
    """What has parts; models differ too much in time to share an axis."""
    together: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.ours.parts:
            together.setdefault((result.stage, result.model), []).append(result)
    return list(together.values())


def _rows(draw: Draw, results: Sequence[Result]) -> int:
    return len(results) if draw is draw_dots else sum(len(result.timings) for result in results)
