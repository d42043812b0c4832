"""How much longer than we each peer takes."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.contest import DETECTRON2, OURS, Result
from bench.plots.style import GRID, INK, add_legend, name_rows
from bench.timing import ratio

UPSTREAM_COLOURS = ("#D55E00", "#0072B2", "#882255")
OTHER_COLOURS = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


def draw_dots(axes: Axes, compared: Sequence[Result]) -> None:
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
    name_rows(axes, [f"{result.stage}   {result.title}" for result in compared])
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(f"Time beside {OURS}'s: right of 1x the other is slower")
    axes.set_xlabel("medians of the rounds' ratios, with quartiles")
    add_legend(axes, colours, "o")


def _colours(compared: Sequence[Result]) -> dict[str, str]:
    """By name; upstream has the same ones in every run."""
    names = list(dict.fromkeys(peer.name for result in compared for peer in result.peers))
    upstream = [name for name in names if name.startswith(DETECTRON2)]
    others = [name for name in names if name not in upstream]
    colours = dict(zip(upstream, UPSTREAM_COLOURS, strict=False))
    return colours | {
        name: OTHER_COLOURS[index % len(OTHER_COLOURS)] for index, name in enumerate(others)
    }
