"""CVAT's command and SDK load the function and accept its shapes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from d2serve.client import Client
from d2serve.detections import Detections
from d2serve.servers.torchserve.launcher.server import Server
from tests.integrations.programs import run_program
from tests.integrations.samples import CLASS_NAMES, HIDDEN, SIZE_HW, masks, sample

IMAGE = "samples/shapes_02.png"
PROGRAM = Path(__file__).with_name("function_program.py")


@pytest.fixture(scope="module")
def detections(server: Server, shapes: Path) -> Detections:
    """The detections that the server returns for the image."""
    with Client(server.url) as client:
        [found] = client.predict(shapes / IMAGE)
    assert len(found) > 1
    return found


@pytest.fixture(scope="module")
def outcome(
    server: Server, shapes: Path, repo_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The program's output, with the decoded masks in `decoded`."""
    file = tmp_path_factory.mktemp("cvat") / "masks.npz"
    printed: dict[str, Any] = run_program(repo_root, PROGRAM, server.url, shapes / IMAGE, file)
    with np.load(file) as content:
        return printed | {"decoded": dict(content)}


def test_masks_of_a_server_keep_every_pixel(
    outcome: dict[str, Any], detections: Detections
) -> None:
    assert np.array_equal(outcome["decoded"]["served"], detections.masks_dense())
    assert {shape["type"] for shape in outcome["served"]} == {"mask"}


def test_masks_with_holes_and_parts_keep_every_pixel(outcome: dict[str, Any]) -> None:
    assert np.array_equal(outcome["decoded"]["fake"], masks())


def test_shapes_have_the_labels_scores_and_frame_of_the_task(
    outcome: dict[str, Any], detections: Detections
) -> None:
    shapes = outcome["served"]
    assert [shape["label"] for shape in shapes] == list(detections.class_names)
    assert [shape["score"] for shape in shapes] == pytest.approx(detections.scores.tolist())
    assert {(shape["frame"], shape["source"]) for shape in shapes} == {(7, "auto")}


def test_the_confidence_threshold_of_cvat_is_kept(
    outcome: dict[str, Any], detections: Detections
) -> None:
    expected = (detections.scores >= 0.9).sum()
    assert len(outcome["confident"]) == expected < len(outcome["served"])


def test_cvat_may_demand_polygons(outcome: dict[str, Any]) -> None:
    assert {shape["type"] for shape in outcome["as_polygons"]} == {"polygon"}


def test_polygons_without_tolerance_are_the_exact_outlines(outcome: dict[str, Any]) -> None:
    shapes = outcome["polygons"]
    assert len(shapes) == len(masks()) + 1, "a mask of two parts is two polygons"
    drawn = np.zeros(SIZE_HW, np.bool_)
    for shape in shapes[1:3]:
        drawn |= filled(shape["points"])
    assert np.array_equal(drawn, masks()[1])


def test_rectangles_of_a_function_file(outcome: dict[str, Any], detections: Detections) -> None:
    points = [shape["points"] for shape in outcome["rectangles"]]
    assert points == pytest.approx(detections.boxes_xyxy)


def test_classes_and_threshold_of_the_parameters(
    outcome: dict[str, Any], detections: Detections
) -> None:
    kept = outcome["names"][:2]
    assert outcome["some_names"] == kept
    expected = [
        name
        for name, score in zip(detections.class_names, detections.scores, strict=True)
        if name in kept and score >= 0.9
    ]
    assert [shape["label"] for shape in outcome["some"]] == expected


def test_skeletons_have_all_keypoints_and_mark_hidden_ones(outcome: dict[str, Any]) -> None:
    keypoints = sample(with_keypoints=True).keypoints
    assert keypoints is not None
    assert len(outcome["skeletons"]) == len(keypoints)
    for shape, points in zip(outcome["skeletons"], keypoints.tolist(), strict=True):
        assert shape["type"] == "skeleton"
        assert [element["points"] for element in shape["elements"]] == [
            pytest.approx([x, y]) for x, y, _ in points
        ]
        occluded = [element["occluded"] for element in shape["elements"]]
        assert occluded == [score == np.float32(HIDDEN) for _, _, score in points]


def test_classes_that_the_task_lacks_can_be_ignored(outcome: dict[str, Any]) -> None:
    assert [shape["label"] for shape in outcome["unmatched"]] == ["dog"]
    assert "dog" in CLASS_NAMES


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("nothing", "`url`, `model` and `endpoint` are empty"),
        ("shape", "`shape` is 'cube'; expected mask, polygon, rectangle, skeleton"),
        ("skeleton", "`shape` is 'skeleton', but the model only has mask, polygon, rectangle"),
        ("classes", "`classes` has 'cat'; expected names of circle, triangle"),
    ],
)
def test_wrong_parameters_are_explained(
    outcome: dict[str, Any], parameter: str, message: str
) -> None:
    assert outcome["refused"][parameter].startswith(message)


def filled(points: list[float]) -> "np.ndarray[Any, Any]":
    """Bool[H, W]: the pixels inside a polygon along pixel borders, drawn at four times the size."""
    image = Image.new("1", (SIZE_HW[1] * 4, SIZE_HW[0] * 4))
    ImageDraw.Draw(image).polygon([value * 4 for value in points], fill=1)
    return np.asarray(image)[2::4, 2::4]
