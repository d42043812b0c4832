"""Pictures that the device resizes get the answers that Pillow's get, nearly."""

import numpy as np
import pytest
import torch
from PIL import Image

from d2serve.detections import Detections, Picture
from d2serve.detector.native import NativeDetector
from d2serve.settings import Settings
from tests.goldens.cases import TRAINED

BOX_TOLERANCE_PX = 0.1
SCORE_TOLERANCE = 3e-3


def detector(resize: str) -> NativeDetector:
    return NativeDetector(TRAINED.build(), torch.device("cpu"), Settings(resize=resize))


def pictures() -> list[Picture]:
    """As they are, and half as large again, which the network makes smaller."""
    opened = [Image.open(path).convert("RGB") for path in TRAINED.pictures]
    larger = [each.resize((each.width * 3 // 2, each.height * 3 // 2)) for each in opened[:3]]
    return [np.array(picture) for picture in (*opened, *larger)]


@pytest.fixture(scope="module")
def both() -> list[tuple[Detections, Detections]]:
    found = []
    for resize in ("pil", "device"):
        outcomes = detector(resize).detect(pictures())
        found.append([outcome.found for outcome in outcomes])
    pairs = list(zip(*found, strict=True))
    assert all(isinstance(each, Detections) for pair in pairs for each in pair)
    return pairs


def test_the_same_objects_are_found_within_the_tolerance(
    both: list[tuple[Detections, Detections]],
) -> None:
    for pillow, device in both:
        assert len(pillow) > 0
        assert device.size_hw == pillow.size_hw
        np.testing.assert_array_equal(device.classes, pillow.classes)
        np.testing.assert_allclose(device.boxes_xyxy, pillow.boxes_xyxy, atol=BOX_TOLERANCE_PX)
        np.testing.assert_allclose(device.scores, pillow.scores, atol=SCORE_TOLERANCE)


def test_the_device_resized_them_indeed(both: list[tuple[Detections, Detections]]) -> None:
    assert any((pillow.scores != device.scores).any() for pillow, device in both)


def test_pictures_are_grouped_by_the_size_that_they_get() -> None:
    sizes_hw = [(240, 320), (480, 640), (320, 240), (360, 480)]
    mixed = [np.full((*size_hw, 3), 127, dtype=np.uint8) for size_hw in sizes_hw]
    batches = [
        [outcome.batch for outcome in detector(resize).detect(mixed)]
        for resize in ("pil", "device")
    ]
    assert batches == [[3, 3, 1, 3]] * 2


def test_a_picture_warms_it_up() -> None:
    detector("device").warm_up()
