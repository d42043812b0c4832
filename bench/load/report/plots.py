"""The plots of a load test's report, with what they show."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.load.points import Point
from bench.load.recommendation import Recommendation, light_load
from bench.load.report.drawing import as_image, styled
from bench.load.report.load_plots import cpu_over_clients, latency_over_clients, latency_over_rate
from bench.load.report.settings_plots import (
    throughput_over_clients,
    throughput_over_light_latency,
)
from bench.load.traffic import OpenLoop


@dataclass(frozen=True)
class Plot:
    """A picture, as a URL that holds it, and the sentences that say what it shows."""

    title: str
    caption: str
    image: str


def plots(points: Sequence[Point], chosen: Recommendation | None) -> list[Plot]:
    """All plots that the points have something for."""
    with styled():
        compared = list(_of_settings(points, chosen))
        return [*compared, *(_of_load(points, chosen) if chosen else ())]


def _of_settings(points: Sequence[Point], chosen: Recommendation | None) -> Iterator[Plot]:
    closed = [each for each in points if each.clients]
    light = [each for each in light_load(closed) if each.load.latency_ms]
    several = len({each.settings for each in closed}) > 1
    thick = " The thick line is recommended." if chosen and several else ""
    yield Plot(
        "Throughput over clients",
        f"Good answers a second; what was refused or broken does not count.{thick}",
        as_image(throughput_over_clients(closed, chosen)),
    )
    if chosen and several and light:
        yield Plot(
            "Throughput against latency under light load",
            "Each mark is a setting: its best throughput over its p99 with the fewest clients.",
            as_image(throughput_over_light_latency(closed, light, chosen)),
        )


def _of_load(points: Sequence[Point], chosen: Recommendation) -> Iterator[Plot]:
    own = [each for each in points if each.clients and each.settings == chosen.settings]
    offered = [each for each in points if isinstance(each.traffic, OpenLoop)]
    name = f"Recommended settings ({chosen.settings}), closed loop. " if chosen.settings else ""
    yield Plot(
        "Latency over clients",
        f"{name}Percentiles of the good answers.",
        as_image(latency_over_clients(own)),
    )
    if any(each.cpu for each in own):
        yield Plot(
            "CPU over clients",
            f"{name}The machine's line holds whatever else ran on it.",
            as_image(cpu_over_clients(own)),
        )
    if offered:
        yield Plot(
            "Latency over the offered rate",
            f"{name.replace('closed', 'open')}Requests come at random moments whether or not "
            "earlier ones have been answered, and each one's latency counts from when it was due.",
            as_image(latency_over_rate(offered, chosen.best.load.requests_per_s)),
        )
