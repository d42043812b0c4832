"""All that a format may say about one picture."""

from dataclasses import dataclass

from handler.detections import Detections
from handler.model_facts import ModelFacts
from handler.pictures import Picture


@dataclass(frozen=True)
class Result:
    """One picture and those of its detections that the client wants.

    Attributes:
        position: the picture's place in the request, from 0.
        picture: UInt8[H, W, 3] RGB.
        detections: of that picture; without masks where none are wanted.
        mask_encoding: `rle` or `polygon`; any other where there are no masks.
        model: that found them.
    """

    position: int
    picture: Picture
    detections: Detections
    mask_encoding: str
    model: ModelFacts
