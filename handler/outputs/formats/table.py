"""The formats by their names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from handler.outputs.formats.clarify import class_scores, relative_rows
from handler.outputs.formats.coco import coco_results
from handler.outputs.formats.default import default_object
from handler.outputs.formats.jumpstart import jumpstart_object
from handler.outputs.formats.result import Result

# A picture's part of an answer: a format's own, or an error's body.
Entry = Any


def as_predictions(entries: Sequence[Entry]) -> dict[str, Any]:
    """{"predictions": [...]} with one entry per picture."""
    return {"predictions": list(entries)}


def as_one_list(entries: Sequence[Entry]) -> list[Any]:
    """All pictures' lists in one; an error tells which picture's it is."""
    joined: list[Any] = []
    for position, entry in enumerate(entries):
        joined += entry if isinstance(entry, list) else [{"image_id": position, **entry}]
    return joined


@dataclass(frozen=True)
class Format:
    """How one picture's entry looks, and how the entries of several are joined.

    `keeps_batches` where an array of one picture with a leading N is answered with a list of one.
    """

    entry: Callable[[Result], Entry]
    join: Callable[[Sequence[Entry]], Any]
    keeps_batches: bool = False


FORMATS = {
    "default": Format(default_object, as_predictions),
    "clarify": Format(relative_rows, list, keeps_batches=True),
    "clarify-scores": Format(class_scores, list, keeps_batches=True),
    "coco": Format(coco_results, as_one_list),
    "jumpstart": Format(jumpstart_object, as_predictions),
}
