"""Results as a table: on the terminal, and as Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec

from bench.contest import OURS, Result
from bench.machine import summary
from bench.results import Run
from bench.timing import Timing, ratio

COLUMNS = ("stage", "case", "who", "ms, median", "quartiles", "pictures/s", f"x {OURS}")
NUMBERS_FROM = 3
TITLE = "Medians and quartiles of rounds in alternation; x: time beside ours in the same round"
# In place of the model, before a part of what stands above.
INDENT = "  of it"
# What is piped on has no width of its own.
PIPED_WIDTH = 160

Rows = Sequence[Sequence[str]]


def rows_of(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """The cells of every contestant, and of the parts of its time, below `COLUMNS`."""
    return [
        row for result in results for each in (result, *parts_of(result)) for row in _rows(each)
    ]


def notes_of(results: Sequence[Result]) -> list[str]:
    """What the reader has to know, each once."""
    told = ((_about(result), result.note) for result in results if result.note)
    return list(dict.fromkeys(f"{about}: {note}" for about, note in told))


def parts_of(result: Result) -> Iterator[Result]:
    """A result for each part of ours, without those who have no such part."""
    for part in result.ours.parts:
        timings = tuple(
            Timing(timing.name, timing.parts[part])
            for timing in result.timings
            if part in timing.parts and any(timing.parts[part])
        )
        if timings and timings[0].name == result.ours.name:
            yield replace(result, case=part, model=INDENT, timings=timings)


def markdown(run: Run) -> str:
    """The whole run as a page: machine, table, notes."""
    table = markdown_table(COLUMNS, rows_of(run.results))
    notes = [f"- {note}" for note in notes_of(run.results)]
    return (
        "\n".join([summary(run.machine), "", f"{TITLE}.", "", *table, "", *notes]).rstrip() + "\n"
    )


def markdown_table(columns: Sequence[str], rows: Rows) -> list[str]:
    """Aligned, so that it reads as plain text too."""
    table = [columns, *rows]
    widths = [max(len(row[index]) for row in table) for index in range(len(columns))]
    rule = ["-" * width for width in widths]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (columns, rule, *rows)
    ]


def print_table(title: str, columns: Sequence[str], rows: Rows, numbers_from: int) -> None:
    """On the terminal; without rich as Markdown."""
    if find_spec("rich") is None:
        print(title, "", *markdown_table(columns, rows), sep="\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index >= numbers_from else "left")
    before, firsts = "", {row[0] for row in rows}
    for row in rows:
        if before and row[0] != before and len(firsts) < len(rows):
            table.add_section()
        table.add_row(*(Text(cell) for cell in row))
        before = row[0]
    console = Console()
    (console if console.is_terminal else Console(width=PIPED_WIDTH)).print(table)


def _rows(result: Result) -> Iterator[tuple[str, ...]]:
    for timing in result.timings:
        first = timing is result.ours
        low, high = timing.quartiles
        yield (
            result.stage,
            result.title,
            timing.name,
            _digits(timing.median * 1e3),
            f"{_digits(low * 1e3)}..{_digits(high * 1e3)}",
            _digits(result.pictures / timing.median),
            "" if first else _ratio(timing, result.ours),
        )


def _ratio(timing: Timing, ours: Timing) -> str:
    times = ratio(timing, ours)
    low, high = times.quartiles
    return f"{times.median:.2f} ({low:.2f}..{high:.2f})"


def _about(result: Result) -> str:
    """A whole stage, or the one case that the note speaks of."""
    return f"{result.stage} {result.title}" if result.ours.parts else result.stage


def _digits(value: float) -> str:
    """Three that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
