"""Send many images concurrently, with a progress bar and a result table."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from d2serve.client.client import Client
from d2serve.client.transport import PredictionError, overlay_path, overlay_type_of


@dataclass(frozen=True)
class Outcome:
    """A file, and the server's JSON answer to it or the reason why there is none."""

    file: Path
    answer: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @property
    def failed(self) -> bool:
        """Whether there is no answer, or one that reports an error for an image in it."""
        return any("error" in image for image in self.images())

    def images(self) -> list[dict[str, Any]]:
        """One object an image: an NPY file may hold several."""
        if self.answer is None:
            return [{"error": self.error}]
        images: list[dict[str, Any]] = self.answer.get("predictions", [self.answer])
        return images

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        found = {"error": self.error} if self.answer is None else {"answer": self.answer}
        return {"file": str(self.file), **found}


def outcome_table(outcomes: Iterable[Outcome]) -> Table:
    """Return one row for each detection, and one for each file without any or refused."""
    table = Table("file", "label", "score", "box")
    for outcome in outcomes:
        for cells in _rows(outcome):
            # Text, as names may hold what looks like rich's markup.
            table.add_row(*(Text(cell) for cell in cells))
    return table


def _rows(outcome: Outcome) -> Iterator[tuple[str, str, str, str]]:
    images = outcome.images()
    for position, image in enumerate(images):
        file = str(outcome.file) if len(images) == 1 else f"{outcome.file} [{position}]"
        if error := image.get("error"):
            yield file, f"error: {error['code']}", "", error["message"]
        elif not image["names"]:
            yield file, "(nothing found)", "", ""
        else:
            for name, score, box in zip(
                image["names"], image["scores"], image["boxes"], strict=True
            ):
                yield file, name, f"{score:.3f}", " ".join(f"{side:.1f}" for side in box)


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
