"""AP of the bundled model."""

from typing import Any

import numpy as np
import pytest

from d2serve.detections import Detections
from models.shapes.accuracy import average_precision, detector_in, heldout_scenes
from tests.cpu import has_int8


def test_other_precisions_are_as_accurate_as_float32() -> None:
    scenes = heldout_scenes(6)
    names = ("fp32", "bf16", *(("int8",) if has_int8() else ()))
    exact, *others = (average_precision(detector_in(name), scenes) for name in names)
    assert min(exact) > 60.0
    for rounded in others:
        # On 400 images the difference is below 0.5; on six, one detection more is a point.
        assert rounded == pytest.approx(exact, abs=2.0)
        assert rounded != exact


def test_wrong_boxes_cost_precision() -> None:
    class Detector:
        def __init__(self, found: Detections) -> None:
            self.output = found

        def detect(self, _images: object) -> list[object]:
            return [self]

    [scene] = heldout_scenes(1)
    count, (height, width) = len(scene.instances), scene.image.shape[:2]
    boxes = np.array([item.box for item in scene.instances], dtype=np.float32)
    scores = np.linspace(1.0, 0.5, count, dtype=np.float32)
    classes = np.array([item.class_index for item in scene.instances])
    for scale, least, most in ((1.0, 99.9, 100.1), (0.5, 0.0, 50.0)):
        masks = np.ones((count, 28, 28), dtype=np.float32)
        found: Any = Detector(Detections((height, width), boxes * scale, scores, classes, masks))
        assert least <= average_precision(found, [scene])[0] <= most
