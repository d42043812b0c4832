"""The plots of a soak's report, with what they show."""

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from bench.load.report.drawing import (
    COLOURS,
    GREY,
    as_image,
    label_ends,
    milliseconds_axis,
    single_axes,
    styled,
)
from bench.load.report.plots import Plot
from bench.soak.latency import minute_seconds, p99_by_minute
from bench.soak.memory import KINDS
from bench.soak.report.time_axis import draw_lines, drawable, ends_of, over_time
from bench.soak.report.windows import GOOD, HOSTILE, LEAVING, OTHER, Window, windows
from bench.soak.restarts import NEVER, Restart
from bench.soak.run import Soaked
from bench.soak.verdict import LARGEST_P99_RATIO

MEGA = 1e6
RATES = {GOOD: COLOURS[0], HOSTILE: COLOURS[2], LEAVING: COLOURS[3], OTHER: COLOURS[1]}
RESTARTS = " Restarts of a worker are shaded."


def plots(soaked: Soaked) -> list[Plot]:
    """All of them."""
    with styled():
        return list(_all(soaked))


def _all(soaked: Soaked) -> Iterator[Plot]:
    parts = windows(soaked.judged, soaked.seconds)
    length = f"Windows of {parts[0].seconds:g} s." if parts else ""
    yield Plot(
        "Requests",
        f"A second, by when they were sent. {length}{RESTARTS}",
        as_image(_rates(soaked, parts)),
    )
    yield Plot(
        "Errors by status",
        "4xx are the answers that hostile requests have to get; 5xx belong within restarts.",
        as_image(_errors(soaked, parts)),
    )
    yield Plot(
        "Latency of right answers",
        f"{length} The marks are the p99 of each minute without what a restart held up, which is "
        f"what the verdict is about; the dashed line is {LARGEST_P99_RATIO:g} times the first one.",
        as_image(_latency(soaked, parts)),
    )
    if soaked.samples:
        yield Plot(
            "Resident memory",
            "All processes of a kind together, once a second. Memory that processes share counts "
            "in each.",
            as_image(_memory(soaked)),
        )
    if soaked.restarts:
        yield Plot(
            "Restarts",
            "From the end of a worker by SIGKILL until the next one is ready.",
            as_image(_restarts(soaked.restarts, soaked.seconds)),
        )


def _rates(soaked: Soaked, parts: Sequence[Window]) -> Figure:
    figure, axes = over_time(soaked.seconds, soaked.restarts)
    lines = [(name, [part.rates[name] for part in parts], colour) for name, colour in RATES.items()]
    draw_lines(axes, [part.middle_min for part in parts], lines)
    axes.set_ylabel("requests/s")
    label_ends(axes, ends_of(lines))
    return figure


def _errors(soaked: Soaked, parts: Sequence[Window]) -> Figure:
    figure, axes = over_time(soaked.seconds, soaked.restarts)
    statuses = sorted({status for part in parts for status in part.errors})
    bottoms = [0] * len(parts)
    for index, status in enumerate(statuses):
        counts = [part.errors.get(status, 0) for part in parts]
        axes.bar(
            [part.middle_min for part in parts],
            counts,
            width=[0.9 * part.seconds / 60 for part in parts],
            bottom=bottoms,
            color=COLOURS[index % len(COLOURS)],
            label=status,
        )
        bottoms = [bottom + count for bottom, count in zip(bottoms, counts, strict=True)]
    axes.set_ylabel("requests")
    if statuses:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, reverse=True)
    return figure


def _latency(soaked: Soaked, parts: Sequence[Window]) -> Figure:
    figure, axes = over_time(soaked.seconds, soaked.restarts)
    milliseconds_axis(axes)
    lines = [
        ("p50", [part.p50_ms for part in parts], COLOURS[0]),
        ("p99", [part.p99_ms for part in parts], COLOURS[1]),
    ]
    for _, values, colour in lines:
        axes.plot([part.middle_min for part in parts], drawable(values), ".-", color=colour)
    minutes = p99_by_minute(soaked.judged, soaked.seconds)
    length = minute_seconds(soaked.seconds) / 60
    middles = [(index + 0.5) * length for index in range(len(minutes))]
    axes.plot(middles, drawable(minutes), "D", color=COLOURS[-1])
    if minutes and minutes[0]:
        axes.axhline(LARGEST_P99_RATIO * minutes[0], color=GREY, linestyle="--", linewidth=1)
    label_ends(axes, ends_of(lines))
    return figure


def _memory(soaked: Soaked) -> Figure:
    figure, axes = over_time(soaked.seconds, soaked.restarts)
    lines = [("together", [sample.total / MEGA for sample in soaked.samples], GREY)]
    for kind, colour in zip(KINDS, COLOURS, strict=False):
        lines.append((kind, [sample.of(kind) / MEGA for sample in soaked.samples], colour))
    draw_lines(axes, [sample.moment / 60 for sample in soaked.samples], lines)
    axes.set_ylabel("MB")
    label_ends(axes, ends_of(lines))
    return figure


def _restarts(restarts: Sequence[Restart], seconds: float) -> Figure:
    figure, axes = single_axes()
    known = [each for each in restarts if each.back_at < NEVER]
    axes.bar(
        [each.killed_at / 60 for each in known],
        [each.down_s for each in known],
        width=seconds / 60 / 40,
        color=COLOURS[1],
    )
    axes.set_xlim(0, seconds / 60)
    axes.set_xlabel("minutes")
    axes.set_ylabel("seconds without the worker")
    return figure
