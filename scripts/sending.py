"""Sends many pictures at once, with a progress bar."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import track

from scripts.client import Client, PredictionError
from scripts.outcomes import Outcome
from scripts.pictures import overlay_path, overlay_type_of

AT_ONCE = 4
# What is piped on has no width of its own, and rich would wrap at 80.
PIPED_WIDTH = 160


def send_pictures(
    client: Client, pictures: Sequence[Path], source: Path, overlays: Path | None = None
) -> list[Outcome]:
    """Send all pictures found under `source`, and write their overlays if a folder is given."""
    sent = _send_concurrently(client, pictures, source, overlays)
    progress = Console(stderr=True)
    return list(track(sent, "Predicting", total=len(pictures), console=progress, transient=True))


def result_console() -> Console:
    """Return the console that results are printed on: stdout, where it ends in a pipe too."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPED_WIDTH)


def _send_concurrently(
    client: Client, pictures: Sequence[Path], source: Path, overlays: Path | None
) -> Iterator[Outcome]:
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        yield from pool.map(lambda picture: _send(client, picture, source, overlays), pictures)
    finally:
        pool.shutdown(cancel_futures=True)


def _send(client: Client, picture: Path, source: Path, overlays: Path | None) -> Outcome:
    try:
        answer = client.predict(picture).json()
        if overlays:
            drawn = client.predict(picture, accept=overlay_type_of(picture)).content
            target = overlay_path(picture, source, overlays)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(drawn)
    except PredictionError as error:
        reason = {"code": error.code, "message": error.message, "hint": error.hint}
        return Outcome(picture, error=reason)
    return Outcome(picture, answer=answer)
