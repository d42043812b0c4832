"""Run a benchmark for each model and precision, and write one report."""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

from bench.baselines.servers import MODELS, Model, our_archive
from bench.comparison import Result, write_results

# The name of a model, a precision, a folder for temporary files, and the options.
Measure = Callable[[str, str, Path, argparse.Namespace], Iterator[Result]]


def write_each_model(name: str, given: argparse.Namespace, measure: Measure) -> None:
    """Measure each of `given.models` in each of `given.precisions`; write the report `name`."""
    with tempfile.TemporaryDirectory(prefix=f"d2serve-{name}-") as temporary:
        results = (
            result
            for model, precision in product(given.models, given.precisions)
            for result in measure(model, precision, Path(temporary), given)
        )
        write_results(given.output / name, results)


def prepare(name: str, precision: str, parent: Path) -> tuple[Path, Model, Path]:
    """Create a folder for a model and precision; return it, the model, and d2serve's archive."""
    folder = parent / f"{name}-{precision}"
    folder.mkdir()
    model = MODELS[name](folder)
    return folder, model, our_archive(model, precision, folder)
