"""What the plots of a soak share: an axis of minutes, and lines over it."""

from collections.abc import Sequence
from math import nan
from typing import TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.load.report.drawing import single_axes
from bench.soak.restarts import Restart

SHADE = "#f3d9c9"
# Its name, values and colour.
Line: TypeAlias = tuple[str, Sequence[float | None], str]


def over_time(seconds: float, restarts: Sequence[Restart]) -> tuple[Figure, Axes]:
    """A plot over the minutes of a run, in which the restarts are shaded."""
    figure, axes = single_axes()
    axes.set_xlim(0, seconds / 60)
    axes.set_xlabel("minutes")
    for restart in restarts:
        end = min(restart.back_at, seconds)
        axes.axvspan(restart.killed_at / 60, end / 60, color=SHADE, linewidth=0, zorder=0)
    return figure, axes


def draw_lines(axes: Axes, minutes: Sequence[float], lines: Sequence[Line]) -> None:
    """All of them, from 0 up."""
    for _, values, colour in lines:
        axes.plot(minutes, drawable(values), color=colour)
    axes.set_ylim(bottom=0)


def drawable(values: Sequence[float | None]) -> list[float]:
    """A line has a gap where there is no value."""
    return [nan if value is None else value for value in values]


def ends_of(lines: Sequence[Line]) -> list[tuple[float, str, str]]:
    """The last value of each line, its name and its colour."""
    told = ((name, [each for each in values if each is not None], c) for name, values, c in lines)
    return [(values[-1], name, colour) for name, values, colour in told if values]
