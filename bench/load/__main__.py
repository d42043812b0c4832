"""`make loadtest`: a server under load, over batch size x delay x workers x clients.

Writes a report with plots and the settings that it recommends. Ctrl-C ends it early, with a report
of what was measured until then.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.load.arguments import Options, parse
from bench.load.report.page import write_report
from bench.load.servers import Opener, own_server, running_already
from bench.load.serving import check_environment, unpacked
from bench.load.sweep import Measured, sweep
from bench.load.traffic import Target
from scripts.errors import CommandError, run
from scripts.pictures import find_pictures

LOGS = Path("logs", "loadtest")
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Sweep and report; 1 if a setting could not be served, 130 after Ctrl-C."""
    options = parse(arguments)
    measured = Measured()
    interrupted = False
    try:
        _measure(options, measured)
    except KeyboardInterrupt:
        interrupted = True
    for name, reason in measured.failures.items():
        print(f"not measured: {name}: {reason}")
    if measured.points:
        subject = f"{options.url or options.model}, pictures: {options.pictures}"
        print(write_report(options.out, subject, measured, options.plan, interrupted=interrupted))
    elif not interrupted:
        raise CommandError(f"nothing could be measured; the logs of our servers are in {LOGS}")
    return INTERRUPTED if interrupted else int(bool(measured.failures))


def _measure(options: Options, measured: Measured) -> None:
    pictures = find_pictures(options.pictures)
    with _opener(options, pictures) as opener, _progress() as progress:
        bar = progress.add_task("starting", total=options.plan.total)

        def tell(now: str, done: int) -> None:
            progress.update(bar, description=now, advance=done)

        sweep(options.plan, opener, measured, tell)


@contextmanager
def _opener(options: Options, pictures: Sequence[Path]) -> Iterator[Opener]:
    if options.url:
        yield running_already(Target(options.url, pictures))
        return
    check_environment()
    with unpacked(options.model) as model:
        yield own_server(model, pictures, LOGS)


def _progress() -> Progress:
    return Progress(
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
        transient=True,
    )


if __name__ == "__main__":
    run(main)
