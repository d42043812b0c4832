"""Plots of all benchmarks: panels below each other in one PNG. matplotlib is imported on demand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which most colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#000000")
INK, GREY, SHADE = "#333333", "#777777", "#F3D9C9"
STYLE: dict[str, Any] = {
    "font.size": 9,
    "text.color": INK,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#DDDDDD",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
}
WIDTH_IN, ROW_IN, AROUND_IN, DPI = 12.0, 0.24, 0.9, 120


@dataclass(frozen=True)
class RatioPanel:
    """By label, the name and the lower quartile, median and upper quartile of each ratio."""

    title: str
    rows: Mapping[str, Sequence[tuple[str, float, float, float]]]

    @property
    def height_in(self) -> float:
        """By the number of rows."""
        return ROW_IN * len(self.rows) + AROUND_IN

    def draw(self, axes: "Axes") -> None:
        """Draw a dot with whiskers for each ratio, on a logarithmic axis."""
        from matplotlib import ticker

        names = dict.fromkeys(name for ratios in self.rows.values() for name, *_ in ratios)
        colours = dict(zip(names, COLOURS * 2, strict=False))
        for row, ratios in enumerate(self.rows.values()):
            for name, low, median, high in ratios:
                spread, colour = [[median - low], [high - median]], colours[name]
                axes.errorbar(median, row, xerr=spread, fmt="o", capsize=2.5, color=colour)
        for name, colour in colours.items():
            axes.plot([], [], "o", color=colour, label=name)
        axes.axvline(1, color=INK, linewidth=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}x"))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        axes.set_yticks(range(len(self.rows)), list(self.rows))
        axes.set_ylim(len(self.rows) - 0.4, -0.6)


@dataclass(frozen=True)
class Line:
    """A line of a plot; None is a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    style: str = "-"


@dataclass(frozen=True)
class LinePanel:
    """Lines over a common axis, which is logarithmic where it has `x_ticks`; `levels` are dashed
    lines by name, `shaded` intervals of x."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    x_ticks: Sequence[float] = ()
    log_y: bool = False
    levels: Mapping[str, float] = field(default_factory=dict)
    shaded: Sequence[tuple[float, float]] = ()
    height_in: float = 3.2

    def draw(self, axes: "Axes") -> None:
        """Draw the lines."""
        from matplotlib import ticker

        for index, line in enumerate(self.lines):
            values = [float("nan") if value is None else value for value in line.y]
            colour = COLOURS[index % len(COLOURS)]
            axes.plot(line.x, values, line.style, color=colour, label=line.name)
        for name, level in self.levels.items():
            axes.axhline(level, color=GREY, linestyle="--", linewidth=1, label=name)
        for start, end in self.shaded:
            axes.axvspan(start, end, color=SHADE, linewidth=0, zorder=0)
        if self.x_ticks:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(ticker.FixedLocator(sorted(set(self.x_ticks))))
            axes.xaxis.set_minor_locator(ticker.NullLocator())
            axes.xaxis.set_major_formatter(ticker.ScalarFormatter())
        if self.log_y:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(ticker.ScalarFormatter())
            axes.yaxis.set_minor_formatter(ticker.NullFormatter())
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(self.x_label)
        axes.set_ylabel(self.y_label)


Panel: TypeAlias = RatioPanel | LinePanel


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
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1.05))
        figure.savefig(path, dpi=DPI)
