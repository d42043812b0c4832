"""FiftyOne, supervision and pycocotools read the detections; masks keep every pixel."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2serve.client import Client
from d2serve.detections import Detections
from d2serve.errors import CommandError
from d2serve.integrations.coco import to_coco_dataset
from d2serve.integrations.optional import require_library
from d2serve.servers.torchserve.launcher.server import Server
from tests.integrations.programs import run_with_masks
from tests.integrations.samples import CLASS_NAMES, KEYPOINTS, SIZE_HW, masks, sample

ENVIRONMENT = ".venv-vision"
IMAGE = "samples/shapes_02.png"
PROGRAM = Path(__file__).with_name("program.py")
FAKE = sample(with_keypoints=True)


@pytest.fixture(scope="module")
def served(server: Server, shapes: Path) -> Detections:
    with Client(server.url) as client:
        [found] = client.predict([shapes / IMAGE])
    return found


@pytest.fixture(scope="module")
def outcome(
    server: Server, shapes: Path, repo_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The output of the program, with its masks in `masks`."""
    file = tmp_path_factory.mktemp("vision") / "masks.npz"
    arguments = server.url, shapes / IMAGE
    return run_with_masks(repo_root, PROGRAM, *arguments, file=file, environment=ENVIRONMENT)


def test_fiftyone_masks_keep_every_pixel(outcome: dict[str, Any], served: Detections) -> None:
    assert np.array_equal(outcome["masks"]["fiftyone_served"], served.masks_dense())
    assert np.array_equal(outcome["masks"]["fiftyone_fake"], masks())


def test_supervision_masks_keep_every_pixel(outcome: dict[str, Any]) -> None:
    assert np.array_equal(outcome["masks"]["supervision"], masks())


@pytest.mark.parametrize("mask_format", ["rle", "polygon"])
def test_pycocotools_reads_the_masks_of_a_dataset(
    outcome: dict[str, Any], served: Detections, mask_format: str
) -> None:
    read, expected = outcome["masks"][f"coco_{mask_format}"], served.masks_dense()
    if mask_format == "rle":
        assert np.array_equal(read, expected)
    else:  # without holes
        assert not (expected & ~read).any()
        assert read.sum() - expected.sum() < expected.sum() / 100


def test_stuff_becomes_a_segmentation(outcome: dict[str, Any]) -> None:
    expected = np.zeros(SIZE_HW, np.int32)
    expected[:, 32:] = 4
    assert np.array_equal(outcome["masks"]["panoptic"], expected)
    columns = np.arange(1, SIZE_HW[1] + 1)
    assert np.array_equal(outcome["masks"]["semantic"], np.broadcast_to(columns, SIZE_HW))


def test_supervision_has_the_fields_of_the_instances(outcome: dict[str, Any]) -> None:
    found = outcome["supervision"]
    assert FAKE.keypoints is not None
    assert found == {
        "xyxy": FAKE.boxes_xyxy.tolist(),
        "confidence": FAKE.scores.tolist(),
        "names": list(FAKE.class_names),
        "has_mask": False,
        "points": FAKE.keypoints[..., :2].tolist(),
        "seen": FAKE.keypoints[..., 2].tolist(),
        "annotated": True,
    }
    assert outcome["empty"] == [0, 0]


def test_fiftyone_coordinates_are_relative(outcome: dict[str, Any]) -> None:
    height, width = SIZE_HW
    found = outcome["fiftyone"]
    boxes = np.array(found["boxes"]) * (width, height, width, height)
    assert boxes[:, :2] == pytest.approx(FAKE.boxes_xyxy[:, :2])
    assert boxes[:, 2:] == pytest.approx(FAKE.boxes_xyxy[:, 2:] - FAKE.boxes_xyxy[:, :2])
    assert found["names"] == list(FAKE.class_names)
    assert found["confidence"] == pytest.approx(FAKE.scores.tolist())
    assert FAKE.keypoints is not None
    points = np.array(found["points"]) * (width, height)
    assert points == pytest.approx(FAKE.keypoints[..., :2])


def test_annotate_saves_labels_in_every_sample(outcome: dict[str, Any]) -> None:
    expected = [
        name for name, score in zip(FAKE.class_names, FAKE.scores, strict=True) if score > 0.65
    ]
    assert outcome["annotated"] == {"count": 3, "names": [expected] * 3, "points": len(expected)}


def test_a_coco_dataset_has_images_categories_and_annotations() -> None:
    found = [("a.png", FAKE), ("b.png", FAKE.select([])), ("c.png", FAKE)]
    dataset = to_coco_dataset(found, CLASS_NAMES, keypoints=KEYPOINTS, mask_format="rle")
    assert [(image["id"], image["file_name"]) for image in dataset["images"]] == [
        (1, "a.png"),
        (2, "b.png"),
        (3, "c.png"),
    ]
    assert [each["name"] for each in dataset["categories"]] == list(CLASS_NAMES)
    assert all(each["keypoints"] == list(KEYPOINTS) for each in dataset["categories"])
    ids = [each["id"] for each in dataset["annotations"]]
    assert ids == list(range(1, 2 * len(FAKE) + 1))
    first = dataset["annotations"][0]
    assert (first["image_id"], first["category_id"], first["iscrowd"]) == (1, 1, 0)
    assert first["area"] == masks()[0].sum()
    assert first["num_keypoints"] == 1, "the other one is hidden"
    assert first["keypoints"][3:] == [0, 0, 0]


def test_boxes_have_the_area_of_the_box() -> None:
    dataset = to_coco_dataset([("a.png", sample(with_masks=False))], CLASS_NAMES)
    assert all(
        each["area"] == each["bbox"][2] * each["bbox"][3] and "segmentation" not in each
        for each in dataset["annotations"]
    )


def test_keypoints_need_names() -> None:
    with pytest.raises(CommandError, match="`keypoints` is empty"):
        to_coco_dataset([("a.png", FAKE)], CLASS_NAMES)


def test_a_missing_library_is_named() -> None:
    with pytest.raises(CommandError, match="pip install no_such_library"):
        require_library("no_such_library")
