"""All that a format may say about one picture."""

from dataclasses import dataclass

from handler.detections import Detections
from handler.pictures import Picture


@dataclass(frozen=True)
class Result:
    """One picture and those of its detections that the client wants.

    Attributes:
        position: the picture's place in the request, from 0.
        picture: UInt8[H, W, 3] RGB.
        detections: of that picture; without masks where none are wanted.
        mask_encoding: `rle` or `polygon`; any other where there are no masks.
        class_names: all of the model's, in the order of the class indices.
    """

    position: int
    picture: Picture
    detections: Detections
    mask_encoding: str
    class_names: tuple[str, ...]
