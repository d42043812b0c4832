"""Where the time of whole runs goes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from bench.contest import Result
from bench.plots.style import GRID, INK, add_legend, name_rows

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


def draw_bars(axes: Axes, results: Sequence[Result]) -> None:
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
    name_rows(axes, labels)
    whose = f"{results[0].stage}, {results[0].model}"
    axes.set_title(f"{whose}: milliseconds of one picture; the line is the whole")
    axes.margins(x=0.1)
    add_legend(axes, named, "s")


def _mark_whole(axes: Axes, row: int, parts_end: float, whole: float) -> None:
    """Parts that overlap are longer than the whole."""
    axes.plot([whole] * 2, [row - 0.4, row + 0.4], color=INK, linewidth=1.2)
    text = f"{whole:,.0f} ms" if whole >= 10 else f"{whole:.1f} ms"
    end = (max(parts_end, whole), row)
    axes.annotate(text, end, (4, 0), textcoords="offset points", va="center", fontsize=8)
