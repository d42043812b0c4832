"""The plots of a load test."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.load.drawing import (
    COLOURS,
    GREY,
    SIZE_IN,
    as_image,
    clients_axis,
    label_ends,
    milliseconds_axis,
    styled,
)
from bench.load.figures import PERCENTILES
from bench.load.points import Point
from bench.load.recommendation import Recommendation, light_load, p99
from bench.load.serving import ServingSettings
from bench.load.traffic import OpenLoop

DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v")


@dataclass(frozen=True)
class Plot:
    """A picture and the sentence that says what it shows."""

    title: str
    caption: str
    image: str


def plots(points: Sequence[Point], chosen: Recommendation | None) -> list[Plot]:
    """All plots that the points have something for."""
    with styled():
        return list(_plots(points, chosen))


def _plots(points: Sequence[Point], chosen: Recommendation | None) -> Iterator[Plot]:
    closed = [each for each in points if each.clients]
    if closed:
        yield Plot(
            "Throughput over clients",
            "Good answers a second, for each setting. Refused and broken requests do not count.",
            as_image(_throughput(closed)),
        )
    light = [each for each in light_load(closed) if each.load.latency_ms]
    if chosen and len(light) > 1:
        yield Plot(
            "Throughput against latency under light load",
            "Each mark is a setting: its best throughput over its p99 with the fewest clients.",
            as_image(_trade_off(closed, light, chosen)),
        )
    if chosen:
        own = [each for each in closed if each.settings == chosen.settings]
        name = f" ({chosen.settings})" if chosen.settings else ""
        yield Plot(
            "Latency over clients",
            f"Percentiles of the good answers under the recommended settings{name}.",
            as_image(_latency(own)),
        )
        if any(each.cpu for each in own):
            yield Plot(
                "CPU over clients",
                f"Cores kept busy under the recommended settings{name}.",
                as_image(_cpu(own)),
            )
        offered = [each for each in points if isinstance(each.traffic, OpenLoop)]
        if offered:
            yield Plot(
                "Latency over the offered rate",
                "An open loop: requests come at random moments whether or not earlier ones have "
                "been answered, and each one's latency counts from when it was due.",
                as_image(_open_loop(offered, chosen)),
            )


def _throughput(closed: Sequence[Point]) -> Figure:
    """A panel for each number of workers, a colour for each batch size, a dash for each delay."""
    panels = sorted({_of(each, "workers") for each in closed})
    colours = _cycle(COLOURS, closed, "batch_size")
    dashes = _cycle(DASHES, closed, "max_delay_ms")
    width = SIZE_IN[0] if len(panels) == 1 else 3.6 * len(panels)
    figure = Figure(figsize=(width, SIZE_IN[1]), layout="constrained")
    rows = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, workers in zip(rows, panels, strict=True):
        clients_axis(axes, [each.clients or 0 for each in closed])
        axes.set_title("" if not workers else _counted(workers, "worker"), loc="left")
        for own in _by_settings(each for each in closed if _of(each, "workers") == workers):
            colour = colours[_of(own[0], "batch_size")]
            x, y = [each.clients for each in own], [each.load.requests_per_s for each in own]
            axes.plot(x, y, dashes[_of(own[0], "max_delay_ms")], color=colour, marker="o")
    rows[0].set_ylabel("good answers (requests/s)")
    rows[0].set_ylim(bottom=0)
    for axes, workers in zip(rows, panels, strict=True):
        lines = _by_settings(each for each in closed if _of(each, "workers") == workers)
        label_ends(
            axes,
            [
                (own[-1].load.requests_per_s, _name(own[0]), colours[_of(own[0], "batch_size")])
                for own in lines
            ],
        )
    return figure


def _trade_off(closed: Sequence[Point], light: Sequence[Point], chosen: Recommendation) -> Figure:
    colours = _cycle(COLOURS, closed, "batch_size")
    markers = _cycle(MARKERS, closed, "workers")
    figure, axes = _figure()
    for each in light:
        best = max(own.load.requests_per_s for own in closed if own.settings == each.settings)
        colour = colours[_of(each, "batch_size")]
        axes.plot(p99(each), best, markers[_of(each, "workers")], color=colour)
        if each.settings == chosen.settings:
            axes.plot(p99(each), best, "o", markersize=13, fillstyle="none", color="black")
            axes.annotate(
                "recommended", (p99(each), best), xytext=(10, -3), textcoords="offset points"
            )
    for size, colour in colours.items():
        axes.plot([], [], "o", color=colour, label=f"batch {size}")
    for workers, marker in markers.items():
        axes.plot([], [], marker, color=GREY, label=_counted(workers, "worker"))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"p99 with {light[0].traffic} (ms)")
    axes.set_ylabel("best throughput (requests/s)")
    if chosen.light:
        axes.axvline(chosen.limit_ms, color=GREY, linestyle="--", linewidth=1)
        axes.annotate(
            "the rule's limit",
            (chosen.limit_ms, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
            color=GREY,
        )
    return figure


def _latency(own: Sequence[Point]) -> Figure:
    figure, axes = _figure()
    clients_axis(axes, [each.clients or 0 for each in own])
    _percentiles(axes, [(float(each.clients or 0), each) for each in own])
    return figure


def _open_loop(offered: Sequence[Point], chosen: Recommendation) -> Figure:
    figure, axes = _figure()
    rates = [
        (each.traffic.requests_per_s, each)
        for each in offered
        if isinstance(each.traffic, OpenLoop)
    ]
    axes.set_xlim(0, 1.05 * max(rate for rate, _ in rates))
    best = chosen.best.load.requests_per_s
    axes.axvline(best, color=GREY, linestyle="--", linewidth=1)
    axes.set_xlabel("offered rate (requests/s)")
    _percentiles(axes, rates)
    top = axes.get_xaxis_transform()
    axes.text(best, 1.02, "best closed loop", color=GREY, ha="center", transform=top)
    for rate, each in rates:
        if each.load.failures:
            share = f"{each.load.failures / each.load.requests:.0%} failed"
            axes.text(rate, 0.02, share, color=COLOURS[1], ha="center", transform=top)
    return figure


def _cpu(own: Sequence[Point]) -> Figure:
    figure, axes = _figure()
    sampled = [(each.clients or 0, each, each.cpu) for each in own if each.cpu]
    clients_axis(axes, [clients for clients, *_ in sampled])
    clients = [clients for clients, *_ in sampled]
    lines: Mapping[str, tuple[list[float], str]] = {
        "workers": ([cpu.workers for *_, cpu in sampled], COLOURS[0]),
        "frontend": ([cpu.frontend for *_, cpu in sampled], COLOURS[1]),
        "load generator": ([each.generator_cores for _, each, _ in sampled], COLOURS[2]),
        "whole machine": ([cpu.machine for *_, cpu in sampled], GREY),
    }
    for values, colour in lines.values():
        axes.plot(clients, values, color=colour, marker="o")
    cores = own[0].cores
    axes.axhline(cores, color=GREY, linestyle="--", linewidth=1)
    axes.text(clients[0], cores, f" all {cores} cores", color=GREY, va="bottom")
    axes.set_ylim(0, 1.1 * cores)
    axes.set_ylabel("busy cores")
    label_ends(axes, [(values[-1], name, colour) for name, (values, colour) in lines.items()])
    return figure


def _percentiles(axes: Axes, points: Sequence[tuple[float, Point]]) -> None:
    milliseconds_axis(axes)
    good = [(x, each.load.latency_ms) for x, each in points if each.load.latency_ms]
    for name, colour in zip(PERCENTILES, COLOURS, strict=False):
        x, y = [x for x, _ in good], [latency[name] for _, latency in good]
        axes.plot(x, y, color=colour, marker="o")
    if good:
        ends = zip(PERCENTILES, COLOURS, strict=False)
        label_ends(axes, [(good[-1][1][name], f"p{name}", colour) for name, colour in ends])


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_IN, layout="constrained")
    return figure, figure.subplots()


def _by_settings(points: Iterator[Point]) -> list[list[Point]]:
    """The points of each setting, by clients."""
    groups: dict[ServingSettings | None, list[Point]] = {}
    for each in points:
        groups.setdefault(each.settings, []).append(each)
    return [sorted(group, key=lambda each: each.clients or 0) for group in groups.values()]


def _of(point: Point, name: str) -> int:
    return getattr(point.settings, name) if point.settings else 0


def _cycle(values: Sequence[str], points: Sequence[Point], name: str) -> dict[int, str]:
    """One of the values for each value of that setting."""
    found = sorted({_of(each, name) for each in points})
    return {each: values[index % len(values)] for index, each in enumerate(found)}


def _name(point: Point) -> str:
    if point.settings is None:
        return ""
    if point.settings.batch_size == 1:
        return "batch 1"
    return f"batch {point.settings.batch_size}, {point.settings.max_delay_ms} ms"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
