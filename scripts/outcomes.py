"""What came of each picture sent, and the table that shows it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text


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
