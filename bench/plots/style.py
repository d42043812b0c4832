"""What all plots share."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

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
DPI = 130


def add_legend(axes: Axes, colours: Mapping[str, str], marker: str) -> None:
    """Beside the plot, where it hides nothing."""
    for name, colour in colours.items():
        axes.plot([], [], marker, color=colour, label=name)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1.05), frameon=False)


def name_rows(axes: Axes, labels: Sequence[str]) -> None:
    """One below the other, with lines for their values."""
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis="x")
