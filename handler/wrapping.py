"""How a request's body wraps its pictures, and so how the answer has to wrap what was found."""

from dataclasses import dataclass
from enum import Enum, auto

# The tensors of an Open Inference answer; image_ids tells several pictures apart.
OUTPUT_NAMES = (
    "boxes",
    "scores",
    "classes",
    "masks",
    "keypoints",
    "panoptic",
    "semantic",
    "image_ids",
)


class Style(Enum):
    """The shapes of bodies that have answers of their own."""

    PLAIN = auto()
    """One picture's object as it is, several under `predictions`."""
    BATCH = auto()
    """One array with a leading N, of 1 too, which the formats for SageMaker Clarify keep."""
    INSTANCES = auto()
    """KServe v1: `instances` in, `predictions` out, a single one too."""
    OPEN_INFERENCE = auto()
    """Open Inference Protocol v2: tensors in, tensors out."""


@dataclass(frozen=True)
class Wrapping:
    """A style, and what only the Open Inference Protocol has.

    Attributes:
        style: which shape.
        id: the client's name for its request, to be sent back; None where it gave none.
        outputs: names of the tensors that it wants; empty for all.
    """

    style: Style = Style.PLAIN
    id: str | None = None
    outputs: tuple[str, ...] = ()
