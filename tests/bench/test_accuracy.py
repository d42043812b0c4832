"""AP in each precision, on a few of the pictures that `python -m bench.accuracy` takes."""

import numpy as np
import pytest

from bench.accuracy import average_precision, detector_in, heldout_scenes
from d2serve.detections import Detections

PICTURES = 6
# On all 400 pictures it is less than 0.1; on so few, one detection more is a point.
DIFFERENCE = 2.0


def test_bfloat16_finds_as_much_as_float32() -> None:
    scenes = heldout_scenes(PICTURES)
    exact, rounded = (average_precision(detector_in(name), scenes) for name in ("fp32", "bf16"))
    assert min(exact) > 60.0
    assert rounded == pytest.approx(exact, abs=DIFFERENCE)
    assert rounded != exact


def test_what_is_missed_and_what_is_wrong_costs_precision() -> None:
    class Finds:
        def __init__(self, found: Detections) -> None:
            self.found = found

        def detect(self, _pictures: object) -> list[object]:
            return [self]

    [scene] = heldout_scenes(1)
    count = len(scene.instances)
    height, width = scene.image.shape[:2]
    truth = Detections(
        size_hw=(height, width),
        boxes_xyxy=np.array([item.box for item in scene.instances], dtype=np.float32),
        scores=np.linspace(1.0, 0.5, count, dtype=np.float32),
        classes=np.array([item.class_index for item in scene.instances]),
        masks=np.ones((count, 28, 28), dtype=np.float32),
    )
    box_ap, _ = average_precision(Finds(truth), [scene])  # type: ignore[arg-type]
    assert box_ap == pytest.approx(100.0)
    shifted = Detections(**{**vars(truth), "boxes_xyxy": truth.boxes_xyxy * 0.5})
    box_ap, _ = average_precision(Finds(shifted), [scene])  # type: ignore[arg-type]
    assert box_ap < 50.0
