"""The result of one image, and the fields that all formats share."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from d2serve.detections import Detections, RGBImage
from d2serve.errors import too_large
from d2serve.masks.panoptic import Segment
from d2serve.messages import Options
from d2serve.metadata import ModelMetadata


@dataclass(frozen=True)
class Result:
    """One image and its detections, filtered by the request's options.

    Attributes:
        position: the image's position in the request, from 0.
        pixels: UInt8[H, W, 3] RGB; None if the response does not contain the image.
        detections: of the image; without masks if the client requested none.
        mask_encoding: `rle` or `polygon`; any value if there are no masks.
        model: the model that found them.
    """

    position: int
    pixels: RGBImage | None
    detections: Detections
    mask_encoding: str
    model: ModelMetadata

    @property
    def required_pixels(self) -> RGBImage:
        """The image, which the response contains."""
        assert self.pixels is not None, "the pixels were freed although the response needs them"
        return np.ascontiguousarray(self.pixels[:, :, :3])  # without a network's fourth channel


def filter_detections(detections: Detections, options: Options) -> Detections:
    """The best detections that match the options, in their order; masks and surfaces only if
    requested.

    Instances whose box or score is not finite are dropped, as Detectron2's box heads do, and
    keypoints that are not finite are 0, 0 with the score 0: JSON has no numbers for them.
    """
    # In single precision like the network, so that its own threshold does not drop any more.
    keep = detections.scores >= np.float32(options.score_threshold)
    keep &= np.isfinite(detections.scores) & np.isfinite(detections.boxes_xyxy).all(axis=1)
    if options.classes is not None:
        keep &= np.isin(detections.classes, list(options.classes))
    chosen = detections.select(np.flatnonzero(keep)[: options.max_detections])
    if chosen.keypoints is not None:
        chosen = replace(chosen, keypoints=_finite_keypoints(chosen.keypoints))
    if options.densepose == "none":
        chosen = replace(chosen, surfaces=None)
    return chosen.without_masks() if options.masks == "none" else chosen


def _finite_keypoints(keypoints: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    is_finite = np.isfinite(keypoints).all(axis=2, keepdims=True)
    return np.where(is_finite, keypoints, np.float32(0))


def relative_boxes(detections: Detections) -> npt.NDArray[np.float64]:
    """Float64[N, 4] x1, y1, x2, y2 in 0..1 of the image's width and height."""
    height, width = detections.size_hw
    return detections.boxes_xyxy / np.array([width, height, width, height], dtype=np.float64)


def label_texts(detections: Detections, names: Sequence[str]) -> list[str]:
    """The class name and score of each instance, such as "horse 99%"."""
    return [
        f"{names[index]} {score:.0%}"
        for index, score in zip(detections.classes, detections.scores, strict=True)
    ]


def segmentations(detections: Detections, encoding: str) -> list[Any]:
    """One compressed RLE object or list of polygons per instance; empty if there are no masks.

    Args:
        encoding: `rle` or `polygon`.
    """
    return detections.segmentations(encoding) if detections.has_masks else []


def category_id(segment: Segment, model: ModelMetadata) -> int:
    """A thing's class index, or the number of thing classes + a stuff's class index."""
    return segment.class_index + (0 if segment.is_thing else len(model.class_names))


def category_name(segment: Segment, model: ModelMetadata) -> str:
    """The name of a segment's class.

    Raises:
        IndexError: the model has no such class.
    """
    return (model.class_names if segment.is_thing else model.stuff_names)[segment.class_index]


def json_text(content: Any) -> str:
    """Compact JSON without escapes of letters.

    Raises:
        ValueError: a number is not finite, which JSON cannot represent.
    """
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def json_bytes(content: Any) -> bytes:
    r"""Compact JSON in UTF-8; half of a surrogate pair, which UTF-8 lacks, as JSON's \uXXXX."""
    return json_text(content).encode("utf-8", "backslashreplace")


def check_size(size: int, limit: int) -> None:
    """Raise RequestError (413) if a response of `size` bytes exceeds the limit."""
    if size > limit:
        raise too_large(
            f"the response has {size} bytes, the limit is {limit}",
            "request masks=none or fewer detections (max_detections, score_threshold), "
            "or raise max_response_bytes in model-config.yaml",
        )
