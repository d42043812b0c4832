"""Plots that compare the settings of a sweep."""

from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure

from bench.load.points import Point
from bench.load.recommendation import Recommendation, p99
from bench.load.report.drawing import (
    COLOURS,
    GREY,
    SIZE_IN,
    clients_axis,
    label_ends,
    single_axes,
)
from bench.load.serving import ServingSettings, counted

DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v")
PANEL_WIDTH_IN = 3.6
CHOSEN_WIDTH = 3.2


def throughput_over_clients(closed: Sequence[Point], chosen: Recommendation | None) -> Figure:
    """A panel for each number of workers, a colour for each batch size, a dash for each delay."""
    panels = sorted({_of(each, "workers") for each in closed})
    colours = _assigned(COLOURS, closed, "batch_size")
    dashes = _assigned(DASHES, closed, "max_delay_ms")
    width = SIZE_IN[0] if len(panels) == 1 else PANEL_WIDTH_IN * len(panels)
    figure = Figure(figsize=(width, SIZE_IN[1]), layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    row[0].set_ylabel("good answers (requests/s)")
    ends = []
    for axes, workers in zip(row, panels, strict=True):
        clients_axis(axes, [each.clients or 0 for each in closed])
        axes.set_title(counted(workers, "worker") if workers else "", loc="left")
        lines = _by_settings(each for each in closed if _of(each, "workers") == workers)
        for settings, own in lines.items():
            axes.plot(
                [each.clients for each in own],
                [each.load.requests_per_s for each in own],
                dashes[_of(own[0], "max_delay_ms")],
                color=colours[_of(own[0], "batch_size")],
                marker="o",
                linewidth=CHOSEN_WIDTH if chosen and settings == chosen.settings else None,
            )
        ends.append(
            [
                (own[-1].load.requests_per_s, _label(settings), colours[_of(own[0], "batch_size")])
                for settings, own in lines.items()
            ]
        )
    row[0].set_ylim(bottom=0)
    # Once all panels share their final axis.
    for axes, names in zip(row, ends, strict=True):
        label_ends(axes, names)
    return figure


def throughput_over_light_latency(
    closed: Sequence[Point], light: Sequence[Point], chosen: Recommendation
) -> Figure:
    """A mark for each setting: a colour for each batch size, a shape for each number of workers.

    Args:
        closed: all points of closed loops.
        light: those of them under light load, with a latency.
        chosen: the setting to be marked, and the limit where it is one of the light load.
    """
    colours = _assigned(COLOURS, closed, "batch_size")
    markers = _assigned(MARKERS, closed, "workers")
    figure, axes = single_axes()
    lines = _by_settings(closed)
    for each in light:
        best = max(own.load.requests_per_s for own in lines[each.settings])
        marker, colour = markers[_of(each, "workers")], colours[_of(each, "batch_size")]
        axes.plot(p99(each), best, marker, color=colour)
        if each.settings == chosen.settings:
            axes.plot(p99(each), best, "o", markersize=13, fillstyle="none", color="black")
            axes.annotate(
                "recommended", (p99(each), best), (-10, -3), textcoords="offset points", ha="right"
            )
    for size, colour in colours.items():
        axes.plot([], [], "o", color=colour, label=f"batch {size}")
    for workers, marker in markers.items():
        axes.plot([], [], marker, color=GREY, label=counted(workers, "worker"))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_ylim(0, 1.08 * axes.dataLim.y1)
    axes.set_xlim(0, 1.08 * max(map(p99, light)))
    axes.set_xlabel(f"p99 with {light[0].traffic} (ms)")
    axes.set_ylabel("best throughput (requests/s)")
    if chosen.light:
        axes.axvline(chosen.limit_ms, color=GREY, linestyle="--", linewidth=1)
        top = axes.get_xaxis_transform()
        axes.text(chosen.limit_ms, 1.02, "limit", color=GREY, ha="center", transform=top)
    return figure


def _by_settings(points: Iterable[Point]) -> dict[ServingSettings | None, list[Point]]:
    """The points of each setting, by clients."""
    groups: dict[ServingSettings | None, list[Point]] = {}
    for each in sorted(points, key=lambda each: each.clients or 0):
        groups.setdefault(each.settings, []).append(each)
    return groups


def _of(point: Point, name: str) -> int:
    """A setting's value; 0 where the server ran already."""
    return getattr(point.settings, name) if point.settings else 0


def _assigned(values: Sequence[str], points: Sequence[Point], name: str) -> dict[int, str]:
    """One of the values for each value of that setting."""
    found = sorted({_of(each, name) for each in points})
    return {each: values[index % len(values)] for index, each in enumerate(found)}


def _label(settings: ServingSettings | None) -> str:
    if settings is None:
        return ""
    if settings.batch_size == 1:
        return "batch 1"
    return f"batch {settings.batch_size}, {settings.max_delay_ms} ms"
