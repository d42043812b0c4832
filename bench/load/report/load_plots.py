"""Plots of what one setting does under more and more load."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.load.figures import PERCENTILES
from bench.load.points import Point
from bench.load.report.drawing import (
    COLOURS,
    GREY,
    clients_axis,
    label_ends,
    milliseconds_axis,
    single_axes,
)
from bench.load.traffic import OpenLoop

PLAIN_BOX = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}


def latency_over_clients(own: Sequence[Point]) -> Figure:
    """A line for each percentile of one setting's closed loops."""
    figure, axes = single_axes()
    clients_axis(axes, [each.clients or 0 for each in own])
    _draw_percentiles(axes, [(float(each.clients or 0), each) for each in own])
    return figure


def latency_over_rate(offered: Sequence[Point], best_rate: float) -> Figure:
    """A line for each percentile of one setting's open loops.

    Args:
        offered: points of open loops.
        best_rate: requests/s of the best closed loop, to be marked.
    """
    figure, axes = single_axes()
    rates = [
        (each.traffic.requests_per_s, each)
        for each in offered
        if isinstance(each.traffic, OpenLoop)
    ]
    axes.set_xlim(0, 1.05 * max(best_rate, *(rate for rate, _ in rates)))
    axes.set_xlabel("offered rate (requests/s)")
    top = axes.get_xaxis_transform()
    axes.axvline(best_rate, color=GREY, linestyle="--", linewidth=1)
    axes.text(best_rate, 1.02, "best closed loop", color=GREY, ha="center", transform=top)
    _draw_percentiles(axes, rates)
    for rate, each in rates:
        if each.load.failures:
            share = f"{each.load.failures / each.load.requests:.0%} failed"
            axes.text(
                rate, 0.03, share, color=COLOURS[1], ha="center", transform=top, bbox=PLAIN_BOX
            )
    return figure


def cpu_over_clients(own: Sequence[Point]) -> Figure:
    """Busy cores of workers, frontend, generator and the machine, in one setting's closed loops."""
    figure, axes = single_axes()
    sampled = [(each, each.cpu) for each in own if each.cpu]
    clients = [each.clients or 0 for each, _ in sampled]
    clients_axis(axes, clients)
    lines: Mapping[str, tuple[list[float], str]] = {
        "whole machine": ([cpu.machine for _, cpu in sampled], GREY),
        "workers": ([cpu.workers for _, cpu in sampled], COLOURS[0]),
        "frontend": ([cpu.frontend for _, cpu in sampled], COLOURS[1]),
        "load generator": ([each.generator_cores for each, _ in sampled], COLOURS[2]),
    }
    for values, colour in lines.values():
        axes.plot(clients, values, color=colour, marker="o")
    cores = own[0].cores
    axes.axhline(cores, color=GREY, linestyle="--", linewidth=1)
    axes.text(clients[0], 1.03 * cores, f"all {cores} cores", color=GREY, va="bottom")
    axes.set_ylim(0, 1.15 * cores)
    axes.set_ylabel("busy cores")
    label_ends(axes, [(values[-1], name, colour) for name, (values, colour) in lines.items()])
    return figure


def _draw_percentiles(axes: Axes, points: Sequence[tuple[float, Point]]) -> None:
    milliseconds_axis(axes)
    good = [(x, each.load.latency_ms) for x, each in points if each.load.latency_ms]
    named = list(zip(PERCENTILES, COLOURS, strict=False))
    for name, colour in named:
        latencies = [latency[name] for _, latency in good]
        axes.plot([x for x, _ in good], latencies, color=colour, marker="o")
    if good:
        label_ends(axes, [(good[-1][1][name], f"p{name}", colour) for name, colour in named])
