"""Reports: one JSON file, one printed Markdown page and one PNG per run; and progress on stderr."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.machine import summary
from bench.plots import Panel, draw


@dataclass(frozen=True)
class Table:
    """Texts in rows below `columns`."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> list[str]:
        """Aligned, so that it reads well as plain text."""
        cells = [self.columns, *self.rows]
        widths = [max(len(row[index]) for row in cells) for index in range(len(self.columns))]
        rule = ["-" * width for width in widths]
        lines = (
            " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in (self.columns, rule, *self.rows)
        )
        return [f"{self.title}:", "", *(f"| {line} |" for line in lines)]


def write_report(
    path: Path,
    machine: dict[str, Any],
    tables: Sequence[Table],
    notes: Sequence[str],
    data: Mapping[str, Any],
    panels: Sequence[Panel] = (),
) -> None:
    """Print a run and write it as `path` with the suffixes .json, .md and .png.

    Args:
        path: without suffix; its folder is created if needed.
        machine: see `describe_machine`.
        tables: of the page.
        notes: lines of text below them.
        data: all measured values, as JSON types.
        panels: of the plot; without any, or without matplotlib, no PNG is written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    page = [summary(machine)]
    for table in tables:
        page += ["", *table.markdown()]
    text = "\n".join([*page, *([""] if notes else []), *(f"- {note}" for note in notes)]) + "\n"
    content = json.dumps({"machine": machine, **data}, indent=1)
    path.with_suffix(".json").write_text(content + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    written = [".json", ".md"]
    if panels and find_spec("matplotlib"):
        draw(panels, summary(machine), path.with_suffix(".png"))
        written.append(".png")
    elif panels:
        print("no plot: matplotlib is not installed", file=sys.stderr)
    print(text)
    print(f"the report: {', '.join(str(path.with_suffix(each)) for each in written)}")


def digits(value: float) -> str:
    """Three significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def progress(text: str) -> None:
    """Show the current step on stderr: in place on a terminal, else as a line."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def end_progress() -> None:
    """Clear the progress line of a terminal."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
