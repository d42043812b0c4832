"""How far a run is: a bar on a terminal, a line for each step where rich is not installed."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TypeAlias

# Takes what is being done, and which part of it, 0..1, is.
Tell: TypeAlias = Callable[[str, float], None]


@contextmanager
def progress() -> Iterator[Tell]:
    """Shows on stderr what it is told."""
    if find_spec("rich") is None:
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda text, share: bar.update(task, description=text, completed=share)


def _lines() -> Tell:
    told = ""

    def tell(text: str, _share: float) -> None:
        nonlocal told
        if text != told:
            print(text, file=sys.stderr, flush=True)
        told = text

    return tell
