"""Send many images concurrently, with a progress bar and a result table."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from d2serve.client.client import ordered
from d2serve.client.images import find_images, overlay_path, overlay_type_of
from d2serve.client.progress import progress_bar
from d2serve.client.sender import Sender
from d2serve.errors import PredictionError

CONCURRENT_REQUESTS = 4
# A pipe has no width, and rich would wrap at 80 characters.
PIPED_WIDTH = 160


# In place of a response of another route or another server.
NOT_A_PREDICTION = {
    "error": {
        "code": "no_prediction",
        "message": "the response contains no detections; use the URL of a prediction route",
        "hint": "such as http://127.0.0.1:8080/invocations",
    }
}


@dataclass(frozen=True)
class FileResult:
    """An image file with the server's JSON response, or with the error that replaced it."""

    file: Path
    response: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @property
    def failed(self) -> bool:
        """True if the file, or one of its images, has an error."""
        return any("error" in image for image in self.images())

    def images(self) -> list[dict[str, Any]]:
        """Return one object per image: an NPY file may contain several."""
        if self.response is None:
            return [{"error": self.error}]
        images: list[dict[str, Any]] = self.response.get("predictions", [self.response])
        return [
            image if "error" in image or "names" in image else NOT_A_PREDICTION for image in images
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the object that `d2serve predict --json` prints."""
        result = {"error": self.error} if self.response is None else {"answer": self.response}
        return {"file": str(self.file), **result}


def send_images(
    client: Sender, sources: Sequence[Path], overlays: Path | None = None
) -> list[FileResult]:
    """Send images with a progress bar on stderr.

    Args:
        client: connection to the server.
        sources: image files, and folders that are searched with their subfolders.
        overlays: folder for images with the detections drawn on them; None to request none.

    Raises:
        CommandError: a source does not exist or contains no image.
        UnreachableError: the server does not exist.
    """
    images = [(image, source) for source in sources for image in find_images(source)]
    with progress_bar(len(images)) as advance:
        results = []
        for result in ordered(partial(_send, client, overlays), images, CONCURRENT_REQUESTS):
            results.append(result)
            advance()
    return results


def result_table(results: Iterable[FileResult]) -> Table:
    """Build a table with a row per detection, and one per image without detections."""
    table = Table("file", "label", "score", "box")
    for result in results:
        for cells in _rows(result):
            # Text, because names may contain rich's markup.
            table.add_row(*(Text(cell) for cell in cells))
    return table


def result_console() -> Console:
    """Return a console on stdout that does not wrap tables when stdout is a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPED_WIDTH)


def _rows(result: FileResult) -> Iterator[tuple[str, str, str, str]]:
    images = result.images()
    for position, image in enumerate(images):
        file = str(result.file) if len(images) == 1 else f"{result.file} [{position}]"
        if error := image.get("error"):
            yield file, f"error: {error['code']}", "", error["message"]
        elif not image["names"]:
            yield file, "(no detections)", "", ""
        else:
            for name, score, box in zip(
                image["names"], image["scores"], image["boxes"], strict=True
            ):
                yield file, name, f"{score:.3f}", " ".join(f"{side:.1f}" for side in box)


def _send(client: Sender, overlays: Path | None, found: tuple[Path, Path]) -> FileResult:
    image, source = found
    try:
        response = client.predict(image).json()
        if overlays:
            overlay = client.predict(image, accept=overlay_type_of(image)).content
            target = overlay_path(image, source, overlays)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(overlay)
    except PredictionError as error:
        reason = {"code": error.code, "message": error.message, "hint": error.hint}
        return FileResult(image, error=reason)
    return FileResult(image, response=response)
