"""What the plots share: colours, axes, and labels at the ends of the lines."""

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator, ScalarFormatter

# Okabe and Ito's, told apart by the colour-blind too; without their yellow, too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
GREY = "#777777"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "grid.color": "#e6e6e6",
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    # The same results draw the same file.
    "svg.hashsalt": "d2serve",
}
SIZE_IN = (7.5, 3.6)
# Between two labels, as a part of the axis.
LEAST_GAP = 0.058


@contextmanager
def styled() -> Iterator[None]:
    """Within the block matplotlib draws in our style."""
    with mpl.rc_context(STYLE):
        yield


def as_image(figure: Figure) -> str:
    """An SVG as a URL that holds it, to be put into a page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def clients_axis(axes: Axes, clients: Sequence[int]) -> None:
    """An axis of numbers of clients, each twice as far as its half."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sorted(set(clients))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("clients in a closed loop")


def milliseconds_axis(axes: Axes) -> None:
    """A logarithmic axis with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("latency (ms)")


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Writes each line's name beside its end, none over another.

    Args:
        axes: with all lines and limits in place.
        ends: y of the last point, name and colour.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    x = axes.get_xlim()[1]
    wanted = sorted((float(to_axes.transform((x, y))[1]), name, colour) for y, name, colour in ends)
    heights = spread([height for height, *_ in wanted], LEAST_GAP)
    for height, (_, name, colour) in zip(heights, wanted, strict=True):
        axes.text(1.015, height, name, color=colour, transform=axes.transAxes, va="center")


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights moved apart to at least `gap`, about as far down as up."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    if not placed:
        return []
    shift = sum(moved - height for moved, height in zip(placed, heights, strict=True))
    return [height - shift / len(placed) for height in placed]


def single_axes() -> tuple[Figure, Axes]:
    """A figure of one plot."""
    figure = Figure(figsize=SIZE_IN, layout="constrained")
    return figure, figure.subplots()
