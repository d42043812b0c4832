"""The plot of a run: where whole requests spend their time, and how much longer peers take."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.contest import DETECTRON2, OURS, Result
from bench.machine import summary
from bench.results import Run
from bench.timing import ratio

# Okabe and Ito's colours, which most colour-blind readers can tell apart.
PART_COLOURS = {
    "decode": "#56B4E9",
    "resize": "#009E73",
    "backbone": "#0072B2",
    "proposals": "#CC79A7",
    "boxes": "#E69F00",
    "masks": "#D55E00",
    "forward": "#0072B2",
    "encode": "#D55E00",
    "rest": "#BBBBBB",
}
OTHER_COLOURS = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
INK, GRID = "#333333", "#DDDDDD"
STYLE = {
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid.axis": "x",
    "grid.color": GRID,
}
WIDTH, ROW_HEIGHT, TITLE_HEIGHT = 12.0, 0.24, 0.4
# What a panel's title and axis take.
ROWS_AROUND = 3.0
DPI = 130

Draw: TypeAlias = Callable[[Axes, Sequence[Result]], None]
Panel: TypeAlias = tuple[Draw, Sequence[Result]]


def plot_run(run: Run, path: Path) -> None:
    """Writes the PNG: for each stage and model bars of its parts, then dots of all peers."""
    panels: list[Panel] = [
        (_bars, results) for results in _by_stage_and_model(run.results) if results
    ]
    compared = [result for result in run.results if result.peers]
    panels += [(_dots, compared)] if compared else []
    heights = [_rows(draw, results) + ROWS_AROUND for draw, results in panels]
    with mpl.rc_context(STYLE):
        size = (WIDTH, max(1, sum(heights)) * ROW_HEIGHT + TITLE_HEIGHT)
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(summary(run.machine), fontsize=8, x=0.01, ha="left")
        grid = figure.add_gridspec(max(1, len(panels)), 1, height_ratios=heights or None)
        for place, (draw, results) in zip(grid, panels, strict=False):
            draw(figure.add_subplot(place), results)
        figure.savefig(path, dpi=DPI)


def _by_stage_and_model(results: Sequence[Result]) -> list[list[Result]]:
    """What has parts; models differ too much in time to share an axis."""
    together: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.ours.parts:
            together.setdefault((result.stage, result.model), []).append(result)
    return list(together.values())


def _rows(draw: Draw, results: Sequence[Result]) -> int:
    return len(results) if draw is _dots else sum(len(result.timings) for result in results)


def _bars(axes: Axes, results: Sequence[Result]) -> None:
    """Stacked milliseconds a picture, ours above its peers; a line at the whole's median."""
    labels: list[str] = []
    named: dict[str, str] = {}
    for result in results:
        for timing in result.timings:
            row, left = len(labels), 0.0
            labels.append(f"{result.case}   {timing.name}")
            for part, seconds in timing.parts.items():
                width = float(np.median(seconds)) * 1e3 / result.pictures
                named[part] = PART_COLOURS.get(part, INK)
                axes.barh(row, width, left=left, height=0.72, color=named[part])
                left += width
            _mark_whole(axes, row, left, timing.median * 1e3 / result.pictures)
        if result is not results[-1]:
            axes.axhline(len(labels) - 0.5, color=GRID, linewidth=0.8)
    _name_rows(axes, labels)
    whose = f"{results[0].stage}, {results[0].model}"
    axes.set_title(f"{whose}: milliseconds of one picture; the line is the whole")
    axes.margins(x=0.1)
    _legend(axes, named, "s")


def _mark_whole(axes: Axes, row: int, parts_end: float, whole: float) -> None:
    """Parts that overlap are longer than the whole."""
    axes.plot([whole] * 2, [row - 0.4, row + 0.4], color=INK, linewidth=1.2)
    text = f"{whole:,.0f} ms" if whole >= 10 else f"{whole:.1f} ms"
    end = (max(parts_end, whole), row)
    axes.annotate(text, end, (4, 0), textcoords="offset points", va="center", fontsize=8)


def _dots(axes: Axes, compared: Sequence[Result]) -> None:
    """A row for each contest: how many times as long as ours each peer takes."""
    colours = _colours(compared)
    for row, result in enumerate(compared):
        for timing in result.peers:
            times = ratio(timing, result.ours)
            low, high = times.quartiles
            whiskers = [[times.median - low], [high - times.median]]
            axes.errorbar(
                times.median,
                row,
                xerr=whiskers,
                fmt="o",
                markersize=5,
                capsize=2.5,
                color=colours[timing.name],
            )
        if row + 1 < len(compared) and compared[row + 1].stage != result.stage:
            axes.axhline(row + 0.5, color=GRID, linewidth=0.8)
    axes.axvline(1, color=INK, linewidth=1)
    _name_rows(axes, [f"{result.stage}   {result.title}" for result in compared])
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(f"Time beside {OURS}'s: right of 1x the other is slower")
    axes.set_xlabel("medians of the rounds' ratios, with quartiles")
    _legend(axes, colours, "o")


def _legend(axes: Axes, colours: Mapping[str, str], marker: str) -> None:
    """Beside the plot, where it hides nothing."""
    for name, colour in colours.items():
        axes.plot([], [], marker, color=colour, label=name)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1.05), frameon=False)


def _name_rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis="x")


def _colours(compared: Sequence[Result]) -> dict[str, str]:
    """Upstream's alone is the strongest; what begins with its name comes near."""
    names = list(dict.fromkeys(peer.name for result in compared for peer in result.peers))
    upstream = [name for name in names if name.startswith(DETECTRON2)]
    others = [name for name in names if name not in upstream]
    colours = dict(zip(upstream, ("#D55E00", "#0072B2", "#882255"), strict=False))
    return colours | {
        name: OTHER_COLOURS[index % len(OTHER_COLOURS)] for index, name in enumerate(others)
    }
