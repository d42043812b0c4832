"""Parts and surface coordinates of DensePose models: stored ones, and their comparison.

The files in answers/densepose are results of `densepose` on Detectron2, with maps by its
`ToChartResultConverter` and `quantize_densepose_chart_result`.
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from d2serve.detections import Detections
from d2serve.masks.densepose import IUV
from tests.goldens.comparison import MIN_AGREEMENT, Boxes, pairs


def read_surfaces(path: Path) -> list[IUV]:
    """The part, U and V at each pixel of each instance's box."""
    content = json.loads(path.read_text(encoding="utf-8"))
    encoded = (np.frombuffer(base64.b64decode(png), np.uint8) for png in content["iuv_pngs"])
    images = (np.asarray(cv2.imdecode(png, cv2.IMREAD_COLOR), np.uint8) for png in encoded)
    return [image[:, :, ::-1].transpose(2, 0, 1) for image in images]


def assert_surfaces_equal(found: Detections, boxes: Boxes, expected: Sequence[IUV]) -> None:
    """Compare the surfaces of instances that have been matched to others."""
    maps = list(found.surface_maps())
    for theirs, ours in pairs(boxes, found):
        iuv, reference = maps[ours].iuv, expected[theirs]
        assert iuv.shape == reference.shape
        same = iuv[0] == reference[0]
        assert same.mean() >= MIN_AGREEMENT
        assert len(np.unique(iuv[0])) > 3
        assert np.abs(iuv.astype(int) - reference)[:, same].max() <= 1
