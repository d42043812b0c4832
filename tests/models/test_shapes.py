"""The pictures that the bundled model was trained on, and the model on some that it never saw."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from d2serve.detections import Detections
from d2serve.detector.native import NativeDetector
from d2serve.settings import Settings
from models.shapes.training.outlines import CLASS_NAMES, mask_box
from models.shapes.training.samples import SAMPLE_PICTURES, write_samples
from models.shapes.training.scenes import MIN_VISIBLE, Scene, generate_scene
from tests.goldens.cases import TRAINED

UNSEEN_SEEDS = range(490_000, 490_020)
LEAST_RECALL = 0.8
LEAST_PRECISION = 0.8


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [generate_scene(seed) for seed in UNSEEN_SEEDS]


def test_a_seed_gives_the_same_scene_again(scenes: list[Scene]) -> None:
    again = generate_scene(UNSEEN_SEEDS[0])
    np.testing.assert_array_equal(again.image, scenes[0].image)
    assert not np.array_equal(scenes[0].image, generate_scene(UNSEEN_SEEDS[1]).image)


def test_size_and_number_of_shapes_can_be_asked_for() -> None:
    scene = generate_scene(1, (300, 200), 2)
    assert scene.image.shape == (200, 300, 3)
    assert len(scene.instances) <= 2


def test_masks_do_not_overlap_and_boxes_enclose_them(scenes: list[Scene]) -> None:
    for scene in scenes:
        covered = np.sum([shape.mask for shape in scene.instances], axis=0)
        assert covered.max() == 1
        for shape in scene.instances:
            assert shape.box == mask_box(shape.mask)
            assert shape.mask.shape == scene.image.shape[:2]


def test_all_classes_and_overlaps_occur(scenes: list[Scene]) -> None:
    shapes = [shape for scene in scenes for shape in scene.instances]
    assert {shape.class_index for shape in shapes} == set(range(len(CLASS_NAMES)))
    assert 0.5 < MIN_VISIBLE < 1


def test_the_sample_pictures_in_the_repository_are_the_generators(tmp_path: Path) -> None:
    written = write_samples(tmp_path)
    assert [path.name for path in written] == [sample.name for sample in SAMPLE_PICTURES]
    for path in written:
        if path.suffix == ".png":  # a JPEG's bytes depend on the encoder's version
            kept = TRAINED.config.parent / "samples" / path.name
            assert path.read_bytes() == kept.read_bytes()


def test_the_bundled_model_finds_shapes_that_it_never_saw(scenes: list[Scene]) -> None:
    detector = NativeDetector(TRAINED.build(), torch.device("cpu"), Settings())
    outcomes = detector.detect([np.ascontiguousarray(scene.image) for scene in scenes])
    present = found = shown = right = 0
    for scene, outcome in zip(scenes, outcomes, strict=True):
        assert isinstance(outcome.found, Detections)
        boxes = torch.tensor([shape.box for shape in scene.instances])
        overlaps = box_iou(boxes, torch.from_numpy(outcome.found.boxes_xyxy)).numpy()
        classes = np.array([shape.class_index for shape in scene.instances])
        matches = (overlaps >= 0.5) & (classes[:, None] == outcome.found.classes)
        present += len(scene.instances)
        shown += len(outcome.found)
        found += int(matches.any(axis=1).sum())
        right += int(matches.any(axis=0).sum())
    assert found / present >= LEAST_RECALL
    assert right / shown >= LEAST_PRECISION


def test_training_without_detectron2_says_what_is_missing(tmp_path: Path, repo_root: Path) -> None:
    hide = (
        "import sys; sys.modules['detectron2'] = None; from models.shapes.training import main, run"
    )
    out = ["--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", f"{hide}; run(lambda: main({out!r}))"],
        cwd=repo_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "detectron2" in done.stderr
    assert "--samples-only" in done.stderr
    assert (tmp_path / "samples").is_dir()
