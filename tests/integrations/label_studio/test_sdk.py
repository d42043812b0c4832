"""Label Studio's SDK reads the predictions, and masks keep every pixel."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2serve.detections import Detections
from d2serve.integrations.label_studio.brush import MAX_VALUES, encode_brush
from d2serve.integrations.label_studio.labeling_config import parse_labeling_config
from d2serve.integrations.label_studio.regions import RegionWriter
from d2serve.integrations.outlines import outlines
from d2serve.masks.paste import MaskRegion
from tests.integrations.label_studio.configs import CONFIGS
from tests.integrations.programs import run_program
from tests.integrations.samples import KEYPOINTS, masks, sample

PROGRAM = Path(__file__).with_name("sdk_program.py")
DETECTIONS = sample(with_keypoints=True)


def regions(name: str, detections: Detections = DETECTIONS) -> list[dict[str, Any]]:
    """The regions for a config; polygons are exact."""
    return RegionWriter(parse_labeling_config(CONFIGS[name]), KEYPOINTS, 0).write(detections)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("label-studio")


@pytest.fixture(scope="module")
def outcome(repo_root: Path, folder: Path) -> dict[str, Any]:
    """The program's output for the predictions of all configs."""
    cases = {
        name: {"config": config, "prediction": {"result": regions(name), "score": 0.5}}
        for name, config in CONFIGS.items()
    }
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    printed: dict[str, Any] = run_program(repo_root, PROGRAM, folder / "cases.json", folder)
    return printed


@pytest.mark.parametrize("name", CONFIGS)
def test_predictions_are_valid(outcome: dict[str, Any], name: str) -> None:
    assert outcome[name]["errors"] == []
    assert outcome["wrong"]["errors"], "the validator checks labels"


def test_brush_masks_keep_every_pixel(outcome: dict[str, Any], folder: Path) -> None:
    assert outcome["brush"]["errors"] == []
    pixels = np.load(folder / "brush.npy")
    assert np.array_equal(pixels, np.repeat(masks()[..., None], 4, axis=3) * 255)


def test_brush_masks_convert_to_coco(outcome: dict[str, Any]) -> None:
    content = outcome["brush"]["coco"]
    names = {category["id"]: category["name"] for category in content["categories"]}
    labels = {names[annotation["category_id"]] for annotation in content["annotations"]}
    assert labels == set(DETECTIONS.class_names)


def test_rectangles_convert_to_the_boxes(outcome: dict[str, Any]) -> None:
    content = outcome["rectangle"]["coco"]
    boxes = [annotation["bbox"] for annotation in content["annotations"]]
    expected = [result["bbox"] for result in DETECTIONS.to_coco()]
    assert np.array(boxes) == pytest.approx(np.array(expected))


def test_polygons_convert_to_the_outlines(outcome: dict[str, Any]) -> None:
    content = outcome["polygon"]["coco"]
    found = [annotation["segmentation"][0] for annotation in content["annotations"]]
    expected = [polygon for polygons in DETECTIONS.masks_polygons() for polygon in polygons]
    assert [sorted(points) for points in found] == [
        pytest.approx(sorted(map(float, points))) for points in expected
    ]


def test_keypoints_belong_to_the_rectangle_of_their_instance(outcome: dict[str, Any]) -> None:
    assert outcome["keypoint"]["errors"] == []
    found = regions("keypoint")
    rectangles = [region for region in found if region["type"] == "rectanglelabels"]
    points = [region for region in found if region["type"] == "keypointlabels"]
    assert len(rectangles) == len(DETECTIONS)
    # The other keypoint of each instance is hidden.
    assert [point["value"]["keypointlabels"] for point in points] == [["head"]] * len(DETECTIONS)
    assert [point["parentID"] for point in points] == [region["id"] for region in rectangles]
    value, (height, width) = points[0]["value"], DETECTIONS.size_hw
    assert DETECTIONS.keypoints is not None
    x, y, _ = DETECTIONS.keypoints[0, 0].tolist()
    assert (value["x"] * width / 100, value["y"] * height / 100) == pytest.approx((x, y))


def test_keypoints_convert_to_coco(outcome: dict[str, Any]) -> None:
    [*_, annotation] = outcome["indexed"]["coco"]["annotations"]
    # The converter merges all instances; the last one remains.
    assert DETECTIONS.keypoints is not None
    expected = DETECTIONS.keypoints[-1, 0, :2].round().tolist()
    assert annotation["keypoints"] == [*expected, 2, 0, 0, 0]


def test_an_instance_has_the_best_region_that_has_its_label() -> None:
    types = [region["type"] for region in regions("several")]
    assert types == ["polygonlabels", "brushlabels", "polygonlabels"]


def test_without_masks_instances_have_rectangles() -> None:
    boxes_only = sample(with_masks=False)
    assert {region["type"] for region in regions("several", boxes_only)} == {"rectanglelabels"}
    assert regions("brush", boxes_only) == []


def test_polygons_have_few_points_within_the_tolerance() -> None:
    dense = np.hypot(*(np.indices((100, 100)) - 50)) < 40
    region = MaskRegion(dense, 0, 0)
    [exact], [simple] = outlines(region, 0), outlines(region, 1)
    assert len(simple) < len(exact) / 4
    radius = np.hypot(*(simple - 50.5).T)
    assert np.all(np.abs(radius - 40) < 1.5)


def test_a_thin_part_does_not_collapse_to_a_line() -> None:
    [outline] = outlines(MaskRegion(np.ones((1, 20), np.bool_), 0, 0), 5)
    assert len(outline) == 4


def test_random_masks_survive_the_encoding() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        height, width = random.integers(1, 30, 2)
        pixels = random.random((height, width)) < random.choice([0, 0.1, 0.5, 0.9, 1])
        region = MaskRegion(pixels, *random.integers(0, 9, 2).tolist())
        size_hw = (region.y + int(height) + 3, region.x + int(width))
        assert np.array_equal(decoded(encode_brush(region, size_hw), size_hw), region.full(size_hw))


def test_runs_longer_than_a_length_can_express() -> None:
    region = MaskRegion(np.ones((300, 400), np.bool_), 100, 50)
    size_hw = (600, 500)
    assert np.array_equal(decoded(encode_brush(region, size_hw), size_hw), region.full(size_hw))


def test_an_image_that_the_encoding_cannot_express() -> None:
    side = 1 << 15
    assert side * side * 4 > MAX_VALUES
    with pytest.raises(ValueError, match="expected less than"):
        encode_brush(MaskRegion(np.ones((1, 1), np.bool_), 0, 0), (side, side))


def decoded(rle: list[int], size_hw: tuple[int, int]) -> "np.ndarray[Any, Any]":
    """Bool[H, W]: a plain reading of the format, bit by bit."""
    text = "".join(f"{byte:08b}" for byte in rle)
    position = 0

    def read(bits: int) -> int:
        nonlocal position
        position += bits
        return int(text[position - bits : position], 2)

    count, value_bits = read(32), read(5) + 1
    widths = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        assert read(1) == 1, "all runs repeat a value"
        length = read(widths[read(2)]) + 1
        values += [read(value_bits)] * length
    pixels = np.array(values).reshape(*size_hw, 4)
    assert np.all(pixels == pixels[..., :1])
    return pixels[..., 3] == 255
