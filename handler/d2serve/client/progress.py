"""A progress bar with the rate and the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


@contextmanager
def progress_bar(total: int, *, enabled: bool = True) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr during the block; yields the function that counts an image."""
    if not enabled:
        yield lambda: None
        return
    columns = (TextColumn("Predicting"), BarColumn(), MofNCompleteColumn(), _Rate(""))
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task("images", total=total)
        yield lambda: progress.advance(task)


class _Rate(TextColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        """The rate of the last seconds, or nothing before the first image."""
        return Text(f"{task.speed:.1f} images/s" if task.speed else "")
