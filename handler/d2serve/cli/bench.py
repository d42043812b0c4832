"""The commands `d2serve loadtest` and `d2serve bench`, which run the repository's benchmarks."""

import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from d2serve.errors import CommandError

PANEL = "Benchmarks"
# All options, --help too, belong to the benchmark.
FORWARDED = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

app = typer.Typer()


@app.command(rich_help_panel=PANEL, context_settings=FORWARDED)
def loadtest(context: typer.Context) -> None:
    """Measure throughput and latency, and recommend settings (in a checkout)."""
    _run_benchmark(["load", *context.args])


@app.command(rich_help_panel=PANEL, context_settings=FORWARDED)
def bench(context: typer.Context) -> None:
    """Run a benchmark of the repository (in a checkout)."""
    _run_benchmark(context.args)


def _run_benchmark(arguments: Sequence[str]) -> None:
    """Run `bench` from the current folder; exits with its exit code.

    Raises:
        CommandError: the current folder is not a checkout, or a package is missing.
    """
    install = 'pip install -e ".[torchserve,bench]"'
    if not Path("bench", "__main__.py").is_file():
        raise CommandError(
            f"{Path.cwd()} has no folder bench: the benchmarks are part of the repository, not of "
            f"the installed package; run this in a checkout with {install}"
        )
    sys.path.insert(0, str(Path.cwd()))
    try:
        from bench.__main__ import main

        code = main(list(arguments))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "bench", "d2serve"):
            raise
        raise CommandError(
            f"module {error.name!r} is not installed; install the benchmarks' packages: {install}"
        ) from error
    if code:
        raise typer.Exit(code)
