"""Plots of all benchmarks: panels below each other in one PNG. matplotlib is imported on demand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which most colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#000000")
INK, GREY, GRID, SHADE = "#333333", "#777777", "#DDDDDD", "#F3D9C9"
STYLE: dict[str, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "lines.markersize": 4.5,
    "legend.frameon": False,
}
WIDTH_IN, ROW_IN, AROUND_IN, LINES_IN, DPI = 12.0, 0.24, 0.9, 3.2, 120


@dataclass(frozen=True)
class BarPanel:
    """Rows of label, values by part, and the whole, which parts that overlap may exceed."""

    title: str
    rows: Sequence[tuple[str, Mapping[str, float], float]]

    @property
    def height_in(self) -> float:
        """By the number of rows."""
        return ROW_IN * len(self.rows) + AROUND_IN

    def draw(self, axes: "Axes") -> None:
        """Draw stacked bars with a line at each whole."""
        names = dict.fromkeys(name for _, parts, _ in self.rows for name in parts)
        colours = dict(zip(names, COLOURS * 2, strict=False))
        for row, (_, parts, whole) in enumerate(self.rows):
            left = 0.0
            for name, value in parts.items():
                axes.barh(row, value, left=left, height=0.72, color=colours[name])
                left += value
            axes.plot([whole] * 2, [row - 0.4, row + 0.4], color=INK, linewidth=1.2)
            place = (max(left, whole), row)
            axes.annotate(
                f"{whole:.3g}", place, (4, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.margins(x=0.1)
        _name_rows(axes, [label for label, *_ in self.rows])
        _legend(axes, colours, "s")


@dataclass(frozen=True)
class RatioPanel:
    """Rows of label, and of each baseline the name, median and quartiles of its ratio."""

    title: str
    rows: Sequence[tuple[str, Sequence[tuple[str, float, float, float]]]]

    @property
    def height_in(self) -> float:
        """By the number of rows."""
        return ROW_IN * len(self.rows) + AROUND_IN

    def draw(self, axes: "Axes") -> None:
        """Draw a dot with whiskers for each baseline, on a logarithmic axis."""
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        names = dict.fromkeys(name for _, ratios in self.rows for name, *_ in ratios)
        colours = dict(zip(names, COLOURS * 2, strict=False))
        for row, (_, ratios) in enumerate(self.rows):
            for name, median, low, high in ratios:
                spread = [[median - low], [high - median]]
                style = {"fmt": "o", "capsize": 2.5, "color": colours[name]}
                axes.errorbar(median, row, xerr=spread, **style)
        axes.axvline(1, color=INK, linewidth=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        _name_rows(axes, [label for label, _ in self.rows])
        _legend(axes, colours, "o")


@dataclass(frozen=True)
class Line:
    """A line of a plot; None is a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    style: str = "-"
    colour: str = ""


@dataclass(frozen=True)
class LinePanel:
    """Lines over a common axis.

    Attributes:
        x_ticks: exact ticks of an axis with base-2 logarithms; without, the axis is linear.
        levels: dashed horizontal lines, by name.
        shaded: intervals of x.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    x_ticks: Sequence[float] = ()
    log_y: bool = False
    levels: Mapping[str, float] = field(default_factory=dict)
    shaded: Sequence[tuple[float, float]] = ()
    height_in: float = LINES_IN

    def draw(self, axes: "Axes") -> None:
        """Draw the lines, with a legend beside the plot."""
        from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, ScalarFormatter

        for index, line in enumerate(self.lines):
            values = [float("nan") if value is None else value for value in line.y]
            colour = line.colour or COLOURS[index % len(COLOURS)]
            axes.plot(line.x, values, line.style, color=colour, label=line.name)
        for name, level in self.levels.items():
            axes.axhline(level, color=GREY, linestyle="--", linewidth=1, label=name)
        for start, end in self.shaded:
            axes.axvspan(start, end, color=SHADE, linewidth=0, zorder=0)
        if self.x_ticks:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(FixedLocator(sorted(set(self.x_ticks))))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(ScalarFormatter())
        if self.log_y:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(self.x_label)
        axes.set_ylabel(self.y_label)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1.05))


Panel: TypeAlias = BarPanel | RatioPanel | LinePanel


def draw(panels: Sequence[Panel], title: str, path: Path) -> None:
    """Write the panels as one PNG, with `title` above them."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    heights = [panel.height_in for panel in panels]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, sum(heights) + 0.4), layout="constrained")
        figure.suptitle(title, fontsize=8, x=0.01, ha="left")
        grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
        for index, panel in enumerate(panels):
            axes = figure.add_subplot(grid[index])
            axes.set_title(panel.title)
            panel.draw(axes)
        figure.savefig(path, dpi=DPI)


def _name_rows(axes: "Axes", labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _legend(axes: "Axes", colours: Mapping[str, str], marker: str) -> None:
    for name, colour in colours.items():
        axes.plot([], [], marker, color=colour, label=name)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1.05))
