"""The plot of a worker's memory over its requests."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from bench.memory.measured import MEGA, Measured
from bench.memory.resident import settled, slope
from bench.plots.style import DPI, GRID, INK, STYLE

SIZE = (9.0, 4.5)
BLUE, ORANGE = "#0072B2", "#D55E00"
# What a worker may take, of the bare model's memory.
ALLOWED = 1.3


def plot_memory(measured: Measured, path: Path) -> None:
    """Writes the PNG: the worker's line, its trend, and what the bare model takes."""
    done = [sample.done for sample in measured.samples]
    resident = [sample.resident / MEGA for sample in measured.samples]
    calm = settled(measured.samples, measured.requests)
    with mpl.rc_context({**STYLE, "axes.grid.axis": "y"}):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        axes.fill_between(done, resident, color=BLUE, alpha=0.12, linewidth=0)
        axes.plot(done, resident, color=BLUE, linewidth=1.5, label="the worker")
        if calm:
            ends = np.array([calm[0].done, calm[-1].done])
            middle = np.mean([(sample.done, sample.resident) for sample in calm], axis=0)
            trend = (middle[1] + slope(calm) * (ends - middle[0])) / MEGA
            axes.plot(ends, trend, color=INK, linewidth=1, linestyle="--", label="its trend")
        bare = measured.bare / MEGA
        axes.axhline(bare, color=ORANGE, label="the bare model, at its peak")
        axes.axhline(bare * ALLOWED, color=ORANGE, linestyle=":", label=f"{ALLOWED:g} times that")
        axes.set_ylim(0, max(*resident, bare * ALLOWED) * 1.15)
        axes.set_xlim(0, max(1, measured.requests))
        axes.set_title(f"{measured.model}: resident memory, {measured.clients} clients")
        axes.set_xlabel("requests done")
        axes.set_ylabel("MB")
        axes.tick_params(length=0)
        axes.grid(visible=True, color=GRID)
        axes.legend(loc="lower right", frameon=False)
        figure.savefig(path, dpi=DPI)
