"""Results, response contents and models for the tests of outputs."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from d2serve.detections import Detections
from d2serve.errors import RequestError
from d2serve.masks.densepose import StoredSurfaces, SurfaceMap
from d2serve.masks.panoptic import Panoptic, Segment
from d2serve.messages import Options, ResponseEnvelope
from d2serve.metadata import ModelMetadata
from d2serve.outputs.accept import JSON
from d2serve.outputs.response import ResponseContent
from d2serve.outputs.result import Result
from tests.bodies import noise
from tests.fakes import detections_of

NAMES = ("person", "dog", "horse")
MODEL = ModelMetadata(
    "animals",
    NAMES,
    score_threshold=0.05,
    max_detections=100,
    stuff_names=("things", "sky", "grass", "sand"),
)
ALL = Options(score_threshold=0.05, max_detections=100)
SIZE_HW = (80, 160)


def _map_of(*rows: tuple[slice, int]) -> npt.NDArray[np.int32]:
    """Int32 of SIZE_HW: these values in the first 100 columns of these rows, else 0."""
    labels = np.zeros(SIZE_HW, dtype=np.int32)
    for where, value in rows:
        labels[where, :100] = value
    return labels


NO_DETECTIONS = detections_of((40, 30), [])
TWO = detections_of(
    SIZE_HW,
    boxes=[(16.0, 8.25, 80.5, 72.0), (0.0, 0.0, 160.0, 80.0)],
    scores=[0.998, 0.75],
    classes=[2, 0],
)
TWO_WITHOUT_MASKS = Detections(TWO.size_hw, TWO.boxes_xyxy, TWO.scores, TWO.classes)
SURFACES = StoredSurfaces(
    (
        SurfaceMap(16, 8, noise(63, 64, 3, seed=1).transpose(2, 0, 1) % 25),
        SurfaceMap(0, 0, noise(80, 160, 3, seed=2).transpose(2, 0, 1)),
    )
)
TWO_OF_ALL = replace(
    TWO,
    surfaces=SURFACES,
    mask_scores=np.array([0.5, -0.25], np.float32),
    keypoints=np.array(
        [[[20.12345, 10, 0.91234567], [79.5, 70.25, 0.04]], [[1, 2, 0.5], [159.5, 79.5, 1]]],
        dtype=np.float32,
    ),
    semantic=_map_of((slice(0, 30), 1), (slice(30, 70), 3)),
    panoptic=Panoptic(
        _map_of((slice(10, 20), 1), (slice(20, 50), 2)),
        (Segment(1, 2, is_thing=True, score=0.9979999), Segment(2, 1, is_thing=False)),
    ),
)
BROKEN = RequestError(400, "bad_request", "broken", "fix it")


def result_of(
    detections: Detections,
    position: int = 0,
    mask_encoding: str = "rle",
    model: ModelMetadata = MODEL,
) -> Result:
    image = noise(*detections.size_hw, 3)
    return Result(position, image, detections, mask_encoding, model)


def content_of(
    *found: Detections | RequestError,
    options: Options = ALL,
    media_type: str = JSON,
    envelope: ResponseEnvelope | None = None,
) -> ResponseContent:
    """The content for one image per element; an error stands for an invalid image."""
    images = tuple(
        None if isinstance(each, RequestError) else noise(*each.size_hw, 3) for each in found
    )
    return ResponseContent(images, found, options, media_type, envelope or ResponseEnvelope())


def parsed(body: bytes) -> Any:
    """Parse JSON strictly: NaN and Infinity are rejected."""
    return json.loads(body.decode("utf-8"), parse_constant=_reject)


def _reject(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def dense_masks(detections: Detections) -> npt.NDArray[np.bool_]:
    """Bool[N, H, W]: masks by interpolating each pixel of the image in the small masks."""
    assert detections.masks is not None
    height, width = detections.size_hw
    rows, columns = np.mgrid[:height, :width] + 0.5
    masks = np.zeros((len(detections), height, width))
    boxes = detections.boxes_xyxy.astype(np.float64)
    for full, mask, (x1, y1, x2, y2) in zip(masks, detections.masks, boxes, strict=True):
        places = ((rows - y1) / (y2 - y1), (columns - x1) / (x2 - x1))
        cells = [place * len(mask) - 0.5 for place in places]
        full[:] = map_coordinates(mask.astype(np.float64), cells, order=1, mode="grid-constant")
    return masks >= 0.5
