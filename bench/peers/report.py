"""Results as a table on the terminal, as Markdown and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import summary
from bench.peers.rounds import Result
from bench.table import markdown_table, print_table

TITLE = "Ours beside others over HTTP, in turns: median (least..most) of the rounds"
COLUMNS = ("model", "measured", "beside", "ours", "theirs", "ours/theirs, quartiles", "target")
NUMBERS_FROM = 3
NAME = "peers"


def print_report(machine: dict[str, Any], results: Sequence[Result]) -> None:
    """Prints the table and what there is to know about its rows."""
    print(summary(machine))
    print_table(TITLE, COLUMNS, [_row(result) for result in results], NUMBERS_FROM)
    print(*_notes(results), sep="\n")


def write_report(machine: dict[str, Any], results: Sequence[Result], folder: Path) -> None:
    """Writes `folder`/peers.md and peers.json."""
    folder.mkdir(parents=True, exist_ok=True)
    table = markdown_table(COLUMNS, [_row(result) for result in results])
    lines = [summary(machine), "", f"{TITLE}.", "", *table, ""]
    page = [*lines, *(f"- {note}" for note in _notes(results))]
    (folder / f"{NAME}.md").write_text("\n".join(page) + "\n", encoding="utf-8")
    content = {"machine": machine, "results": [_entry(result) for result in results]}
    text = json.dumps(content, indent=1) + "\n"
    (folder / f"{NAME}.json").write_text(text, encoding="utf-8")


def _notes(results: Sequence[Result]) -> list[str]:
    return [f"{each.model}, {each.measured} beside {each.beside}: {each.note}" for each in results]


def _entry(result: Result) -> dict[str, Any]:
    return {**asdict(result), "ratio": asdict(result.ratio)}


def _row(result: Result) -> tuple[str, ...]:
    low, high = result.ratio.quartiles
    return (
        result.model,
        result.measured,
        result.beside,
        _spread(result.ours),
        _spread(result.theirs),
        f"{result.ratio.median:.2f} ({low:.2f}..{high:.2f})",
        result.target,
    )


def _spread(values: Sequence[float]) -> str:
    return f"{np.median(values):.4g} ({min(values):.4g}..{max(values):.4g})"
