"""The generator of the bundled model's images, and the model on unseen images."""

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
from models.shapes.training.samples import SAMPLE_IMAGES, write_samples
from models.shapes.training.scenes import MIN_VISIBLE, Scene, generate_scene
from tests.goldens.cases import TRAINED

UNSEEN_SEEDS = range(490_000, 490_020)
MIN_RECALL = 0.8
MIN_PRECISION = 0.8


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [generate_scene(seed) for seed in UNSEEN_SEEDS]


def test_a_seed_always_gives_the_same_scene(scenes: list[Scene]) -> None:
    again = generate_scene(UNSEEN_SEEDS[0])
    np.testing.assert_array_equal(again.image, scenes[0].image)
    assert not np.array_equal(scenes[0].image, generate_scene(UNSEEN_SEEDS[1]).image)


def test_size_and_number_of_shapes_are_parameters() -> None:
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


def test_the_sample_images_in_the_repository_are_reproducible(tmp_path: Path) -> None:
    written = write_samples(tmp_path)
    assert [path.name for path in written] == [sample.name for sample in SAMPLE_IMAGES]
    for path in written:
        if path.suffix == ".png":  # a JPEG's bytes depend on the encoder's version
            committed = TRAINED.config.parent / "samples" / path.name
            assert path.read_bytes() == committed.read_bytes()


def test_the_bundled_model_detects_unseen_shapes(scenes: list[Scene]) -> None:
    detector = NativeDetector(TRAINED.build(), torch.device("cpu"), Settings())
    results = detector.detect([np.ascontiguousarray(scene.image) for scene in scenes])
    shapes = found = detections = correct = 0
    for scene, result in zip(scenes, results, strict=True):
        assert isinstance(result.output, Detections)
        boxes = torch.tensor([shape.box for shape in scene.instances])
        overlaps = box_iou(boxes, torch.from_numpy(result.output.boxes_xyxy)).numpy()
        classes = np.array([shape.class_index for shape in scene.instances])
        matches = (overlaps >= 0.5) & (classes[:, None] == result.output.classes)
        shapes += len(scene.instances)
        detections += len(result.output)
        found += int(matches.any(axis=1).sum())
        correct += int(matches.any(axis=0).sum())
    assert found / shapes >= MIN_RECALL
    assert correct / detections >= MIN_PRECISION


def test_training_without_detectron2_names_the_missing_package(
    tmp_path: Path, repo_root: Path
) -> None:
    hide = "import sys; sys.modules['detectron2'] = None"
    out = ["--out", str(tmp_path)]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{hide}; from models.shapes.training.__main__ import main; main({out!r})",
        ],
        cwd=repo_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "detectron2" in done.stderr
    assert "--samples-only" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "samples").is_dir()
