"""Test-time augmentation in configs and archives: on only by the option of the build."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from d2serve.building import calibration_images
from d2serve.building.archive import build_archive
from d2serve.building.config import parse_config, read_config
from d2serve.building.runtimes import DETECTRON2, write_model_folder
from d2serve.building.yaml_config import merge
from d2serve.detector.native import NativeDetector
from d2serve.errors import ConfigError, UnsupportedConfigError
from d2serve.model.augmentation_config import AugmentationConfig
from d2serve.serving.loading import load_detector
from d2serve.serving.model_config import read_settings
from tests.goldens.cases import CONFIGS, SAMPLES, GoldenModel

DEFAULTS = AugmentationConfig(tuple(range(400, 1300, 100)), max_size=4000, flip=True)
VERSIONS = AugmentationConfig((96, 128), max_size=150, flip=True)
SMALL: dict[str, Any] = {
    "TEST": {"AUG": {"ENABLED": True, "MIN_SIZES": (96, 128), "MAX_SIZE": 150}}
}

# Lines that the build of `augmented` reports.
REPORT: list[str] = []


def config(name: str = "mask_rcnn_r50", **change: Any) -> dict[str, Any]:
    return merge(read_config(CONFIGS / f"{name}.yaml"), change)


def test_the_sizes_are_those_of_the_config_or_detectron2s() -> None:
    assert parse_config(config(), augment=True).augmentation == DEFAULTS
    chosen = config(TEST={"AUG": {"MIN_SIZES": [640], "MAX_SIZE": 900, "FLIP": False}})
    assert parse_config(chosen, augment=True).augmentation == AugmentationConfig((640,), 900, False)


def test_enabled_has_no_effect_without_the_option() -> None:
    enabled = parse_config(config(**SMALL))
    assert enabled.augmentation is None
    assert enabled == parse_config(config())
    turned_off = parse_config(config(TEST={"AUG": {"ENABLED": False}}), augment=True)
    assert turned_off.augmentation == DEFAULTS


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MIN_SIZES", []),
        ("MIN_SIZES", [400, -1]),
        ("MIN_SIZES", [400.5]),
        ("MIN_SIZES", 400),
        ("MIN_SIZES", [400] * 101),
        ("MAX_SIZE", 0),
        ("MAX_SIZE", True),
        ("FLIP", "yes"),
    ],
)
def test_wrong_values_are_named_if_they_are_read(key: str, value: object) -> None:
    wrong = config(TEST={"AUG": {key: value}})
    assert parse_config(wrong).augmentation is None
    with pytest.raises(UnsupportedConfigError) as raised:
        parse_config(wrong, augment=True)
    [problem] = raised.value.problems
    assert problem.startswith(f"TEST.AUG.{key}: {value!r} (supported: ")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("keypoint_rcnn", r"MODEL\.KEYPOINT_ON: True \(--augment does not support keypoints"),
        ("densepose/decoder", r"MODEL\.DENSEPOSE_ON: True \(--augment supports only box and mask"),
        ("retinanet", r"META_ARCHITECTURE: 'RetinaNet' \(--augment requires StandardROIHeads"),
        ("panoptic_fpn", r"META_ARCHITECTURE: 'PanopticFPN' \(--augment requires"),
        ("rpn_fpn", r"META_ARCHITECTURE: 'ProposalNetwork' \(--augment requires"),
        ("mask2former_instance", r"META_ARCHITECTURE: 'MaskFormer' \(--augment requires"),
        ("center_mask_vovnet", r"ROI_HEADS\.NAME: 'CenterROIHeads' \(--augment requires"),
        ("mask_rcnn_vitdet", r"--augment is for configs with keys .*; this is a lazy config"),
    ],
)
def test_other_networks_are_refused_by_name(name: str, problem: str) -> None:
    parse_config(config(name))
    with pytest.raises(ConfigError, match=problem):
        parse_config(config(name), augment=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config in small sizes, and a checkpoint."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "config.yaml").write_text(yaml.safe_dump(config(**SMALL)))
    model = GoldenModel("x", CONFIGS / "mask_rcnn_r50.yaml", None, ()).build()
    torch.save(model.state_dict(), folder / "model_final.pth")
    return folder


@pytest.fixture(scope="module")
def augmented(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked archive that augments images."""
    return build(folder, tmp_path_factory.mktemp("augmented"), REPORT, augment=True)


def build(folder: Path, target: Path, lines: list[str], **options: Any) -> Path:
    archive = build_archive(
        folder / "config.yaml",
        folder / "model_final.pth",
        target / "model.mar",
        report=lines.append,
        **options,
    )
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(target / "unpacked")
    return target / "unpacked"


def stored(unpacked: Path) -> Any:
    return json.loads((unpacked / "model" / "model.json").read_text())["config"]["augmentation"]


def test_an_archive_augments_images_by_the_option(augmented: Path) -> None:
    assert REPORT[-1] == (
        "augmentation: 4 forward passes per image, shorter sides 96, 128, each flipped too"
    )
    assert stored(augmented) == {"min_sizes": [96, 128], "max_size": 150, "flip": True}
    settings = read_settings(augmented / "model-config.yaml")
    detector = load_detector(augmented, torch.device("cpu"), settings)
    assert isinstance(detector, NativeDetector)
    assert detector.augmented is not None
    assert detector.augmented.config == VERSIONS


def test_an_archive_without_the_option_reports_that_enabled_has_no_effect(
    folder: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    unpacked = build(folder, tmp_path, lines)
    assert lines[-1] == (
        "augmentation: off, as in Detectron2's predictor; --augment applies TEST.AUG"
    )
    assert stored(unpacked) is None


def test_the_detectron2_package_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--augment is for the runtime native, and the model"):
        write_model_folder(tmp_path, folder / "config.yaml", {}, DETECTRON2, augment=True)


def test_calibration_images_have_the_sizes_of_the_versions(
    augmented: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []

    def record(images: Sequence[Tensor], sizes_hw: Sequence[tuple[int, int]]) -> None:
        [image], [size_hw] = images, sizes_hw
        expected = VERSIONS.resized(size_hw)[len(shapes) % 2]
        shapes.append(tuple(image.shape[1:]))
        assert shapes[-1] == expected

    monkeypatch.setattr(calibration_images, "build_optimized", lambda *_: record)
    monkeypatch.setattr(calibration_images, "calibrate", lambda _, runs: [run() for run in runs])
    monkeypatch.setattr(calibration_images, "write_calibration", lambda *_: None)
    calibration_images.calibrate_folder(augmented / "model", SAMPLES[0].parent)
    assert len(shapes) == len(SAMPLES)
    assert len(set(shapes)) > 2
