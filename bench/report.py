"""Table and plot of a run that was timed before: `python -m bench.report out/bench/results.json`.

Useful where the run's environment had no matplotlib.
"""

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from bench.machine import summary
from bench.results import Run, read_run
from bench.table import COLUMNS, NUMBERS_FROM, TITLE, markdown, notes_of, print_table, rows_of
from scripts.errors import run

MARKDOWN, PLOT = "results.md", "results.png"


def report(timed: Run, folder: Path) -> None:
    """Prints the table; writes it, and where matplotlib is installed the plot, into the folder."""
    print(summary(timed.machine))
    print_table(TITLE, COLUMNS, rows_of(timed.results), NUMBERS_FROM)
    print(*notes_of(timed.results), sep="\n")
    (folder / MARKDOWN).write_text(markdown(timed), encoding="utf-8")
    written = [MARKDOWN]
    if find_spec("matplotlib") is None:
        print(
            f"no plot, as matplotlib is not installed; where it is: "
            f"python -m bench.report {folder / 'results.json'}"
        )
    else:
        from bench.plots.page import plot_run

        plot_run(timed, folder / PLOT)
        written.append(PLOT)
    print(f"written into {folder}: {', '.join(written)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Reports on one file, beside it."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=Path("out/bench/results.json"))
    path = parser.parse_args(arguments).results
    report(read_run(path), path.parent)
    return 0


if __name__ == "__main__":
    run(main)
