"""One image's result: the fields that all formats share."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from d2serve.detections import Detections, Picture, Segment
from d2serve.errors import too_large
from d2serve.masks.paste import regions
from d2serve.masks.polygons import encode_polygons
from d2serve.masks.rle import encode_rles
from d2serve.masks.runs import paste_runs
from d2serve.messages import Options
from d2serve.metadata import ModelFacts


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


BOX_DECIMALS = 3
SCORE_DECIMALS = 6


def rounded_pixels(values: npt.NDArray[np.floating]) -> list[Any]:
    """Lists of the same shape, to a thousandth of a pixel."""
    return _rounded(values, BOX_DECIMALS)


def rounded_shares(values: npt.NDArray[np.floating]) -> list[Any]:
    """Lists of the same shape, to a millionth: scores, and coordinates in 0..1."""
    return _rounded(values, SCORE_DECIMALS)


def rounded_share(value: float) -> float:
    """To a millionth."""
    return round(value, SCORE_DECIMALS)


def rounded_keypoints(keypoints: npt.NDArray[np.floating]) -> list[Any]:
    """Lists of the same shape [..., 3]: x and y as pixels are rounded, the score as shares are."""
    values = keypoints.astype(np.float64)
    values[..., :2] = values[..., :2].round(BOX_DECIMALS)
    values[..., 2] = values[..., 2].round(SCORE_DECIMALS)
    rows: list[Any] = values.tolist()
    return rows


def relative_boxes(detections: Detections) -> npt.NDArray[np.float64]:
    """Float64[N, 4] x1, y1, x2, y2 in 0..1 of the picture's width and height."""
    height, width = detections.size_hw
    return detections.boxes_xyxy / np.array([width, height, width, height], dtype=np.float64)


def _rounded(values: npt.NDArray[np.floating], decimals: int) -> list[Any]:
    # In double precision: a rounded float32 prints with all its digits.
    rows: list[Any] = values.astype(np.float64).round(decimals).tolist()
    return rows


def label_texts(detections: Detections, names: Sequence[str]) -> list[str]:
    """Such as "horse 99%", as people read them."""
    return [
        f"{names[index]} {score:.0%}"
        for index, score in zip(detections.classes, detections.scores, strict=True)
    ]


def category_id(segment: Segment, model: ModelFacts) -> int:
    """A thing's class index, or the number of classes + stuff's class index: never the same."""
    return segment.class_index + (0 if segment.is_thing else len(model.class_names))


def category_name(segment: Segment, model: ModelFacts) -> str:
    """The thing's or the stuff's name.

    Raises:
        IndexError: the model has no such class.
    """
    return (model.class_names if segment.is_thing else model.stuff_names)[segment.class_index]


def segmentations(detections: Detections, encoding: str) -> list[Any]:
    """One compressed RLE object or list of polygons per instance; empty where there are no masks.

    Args:
        encoding: `rle` or `polygon`.
    """
    if detections.masks is None:
        return []
    runs = paste_runs(detections.masks, detections.boxes_xyxy, detections.size_hw)
    if encoding == "polygon":
        return [encode_polygons(region) for region in regions(runs)]
    return list(encode_rles(runs))


def selected(detections: Detections, options: Options) -> Detections:
    """The best detections that the options let through, in their order; masks where wanted."""
    # In single precision, as the network compares: its own threshold must not drop any more.
    keep = detections.scores >= np.float32(options.score_threshold)
    if options.classes is not None:
        keep &= np.isin(detections.classes, list(options.classes))
    chosen = detections.select(np.flatnonzero(keep)[: options.max_detections])
    return replace(chosen, masks=None) if options.masks == "none" else chosen


def json_text(content: Any) -> str:
    """Without spaces, and with letters as they are.

    Raises:
        ValueError: a number is not finite, which JSON cannot say.
    """
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def json_bytes(content: Any) -> bytes:
    r"""The same in UTF-8; half of a surrogate pair, which UTF-8 lacks, as JSON's \uXXXX."""
    return json_text(content).encode("utf-8", "backslashreplace")


def require_bytes(size: int, most: int) -> None:
    """Raises RequestError: 413 where an answer of `size` bytes passes `most`."""
    if size > most:
        raise too_large(
            f"the answer has {size} bytes; at most {most} are sent",
            "ask for masks=none or fewer detections (max_detections, score_threshold), "
            "or raise max_response_bytes in model-config.yaml",
        )
