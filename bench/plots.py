"""The plot of a run: where whole requests spend their time, and how much longer peers take."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

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
WIDTH, ROW_HEIGHT, MARGIN = 12.0, 0.24, 1.1
DPI = 130


def plot_run(run: Run, path: Path) -> None:
    """Writes the PNG: bars of what has parts, then dots of what has peers."""
    parted = [result for result in run.results if result.ours.parts]
    compared = [result for result in run.results if result.peers]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, _height(parted, compared)), layout="constrained")
        figure.suptitle(summary(run.machine), fontsize=8, x=0.01, ha="left")
        panels = [panel for panel in (_rows_of_bars(parted), len(compared)) if panel]
        axes = figure.subplots(
            len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": [n + 4 for n in panels]}
        )[:, 0]
        remaining = list(axes)
        if parted:
            _bars(remaining.pop(0), parted)
        if compared:
            _dots(remaining.pop(0), compared)
        figure.savefig(path, dpi=DPI)


def _height(parted: Sequence[Result], compared: Sequence[Result]) -> float:
    return (_rows_of_bars(parted) + len(compared)) * ROW_HEIGHT + 2 * MARGIN + 0.6


def _rows_of_bars(parted: Sequence[Result]) -> int:
    return sum(len(result.timings) for result in parted)


def _bars(axes: Axes, parted: Sequence[Result]) -> None:
    """Stacked milliseconds a picture, ours above its peers; a mark at the whole's median."""
    labels = []
    for result in parted:
        for timing in result.timings:
            row, left = len(labels), 0.0
            labels.append(f"{result.stage} {result.case}   {timing.name}")
            for part, seconds in timing.parts.items():
                width = _median(seconds) * 1e3 / result.pictures
                axes.barh(row, width, left=left, height=0.72, color=PART_COLOURS.get(part, INK))
                left += width
            whole = timing.median * 1e3 / result.pictures
            axes.plot([whole] * 2, [row - 0.4, row + 0.4], color=INK, linewidth=1.2)
            axes.annotate(
                f"{whole:,.0f} ms", (max(left, whole), row), (4, 0), textcoords="offset points",
                va="center", fontsize=8,
            )
        if result is not parted[-1]:
            axes.axhline(len(labels) - 0.5, color=GRID, linewidth=0.8)
    _name_rows(axes, labels)
    named = dict.fromkeys(part for result in parted for each in result.timings for part in each.parts)
    for part in named:
        axes.barh(0, 0, color=PART_COLOURS.get(part, INK), label=part)
    axes.set_title("Milliseconds of one picture, by part")
    axes.set_xlabel("medians; the line is the whole, which is less than its parts where they overlap")
    axes.legend(loc="lower right", frameon=False, ncols=2)
    axes.margins(x=0.08)


def _dots(axes: Axes, compared: Sequence[Result]) -> None:
    """A row for each contest: how many times as long as ours each peer takes."""
    colours = _colours(compared)
    for row, result in enumerate(compared):
        for timing in result.peers:
            times = ratio(timing, result.ours)
            low, high = times.quartiles
            whiskers = [[times.median - low], [high - times.median]]
            axes.errorbar(
                times.median, row, xerr=whiskers, fmt="o", markersize=5, capsize=2.5,
                color=colours[timing.name],
            )
        if row + 1 < len(compared) and compared[row + 1].stage != result.stage:
            axes.axhline(row + 0.5, color=GRID, linewidth=0.8)
    axes.axvline(1, color=INK, linewidth=1)
    _name_rows(axes, [f"{result.stage}   {result.case}" for result in compared])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(f"Time beside {OURS}'s: right of 1x the other is slower")
    axes.set_xlabel("medians of the rounds' ratios, with quartiles")
    for name, colour in colours.items():
        axes.plot([], [], "o", color=colour, label=name)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)


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


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return (ordered[len(ordered) // 2] + ordered[(len(ordered) - 1) // 2]) / 2
