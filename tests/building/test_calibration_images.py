"""Archives for 8-bit integers: built with calibration images, loaded, and refused."""

import json
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

import d2serve
from d2serve.building.archive import build_archive
from d2serve.building.calibration_images import MAX_IMAGES, image_files
from d2serve.detector.native import NativeDetector, choose_dtype
from d2serve.errors import CommandError, ConfigError, SettingsError
from d2serve.model import int8_conv
from d2serve.model.calibration_file import CALIBRATION_FILE, read_calibration
from d2serve.model.int8_backbone import Int8FPN
from d2serve.serving.archive_files import unpacked_archive
from d2serve.settings import Settings
from tests.cpu import needs_int8

CPU, INT8 = torch.device("cpu"), {"handler": {"precision": "int8"}}


@pytest.fixture(scope="module")
def archive(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines: list[str] = []
    built = build(shapes, tmp_path_factory.mktemp("int8"), shapes / "samples", lines)
    assert any(line.startswith("int8: largest error of a part ") for line in lines)
    return built


@pytest.fixture(scope="module")
def model_folder(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with unpacked_archive(archive) as folder:
        return copytree(folder / "model", tmp_path_factory.mktemp("unpacked") / "model")


@needs_int8
def test_an_int8_archive_detects_the_same_objects(archive: Path, shapes: Path) -> None:
    results = {}
    for precision in (None, "fp32"):
        with d2serve.load(archive, precision=precision) as model:
            [results[precision]] = model.predict(
                shapes / "samples" / "shapes_02.png", score_threshold=0.7
            )
    found, exact = results[None], results["fp32"]
    assert sorted(found.classes) == sorted(exact.classes)
    assert len(exact) > 1
    for box in exact.boxes_xyxy:
        assert np.abs(found.boxes_xyxy - box).max(axis=1).min() < 2.0
    assert not np.array_equal(found.scores, exact.scores)


@needs_int8
def test_the_network_runs_in_integers_with_mapped_weights(model_folder: Path) -> None:
    detector = NativeDetector.from_folder(model_folder, CPU, Settings(precision="int8"))
    assert isinstance(detector.model.backbone, Int8FPN)


@needs_int8
def test_a_machine_without_the_operators_runs_in_another_type(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(int8_conv, "find_problem", lambda: "no VNNI")
    detector = NativeDetector.from_folder(model_folder, CPU, Settings(precision="int8"))
    assert not isinstance(detector.model.backbone, Int8FPN)
    assert "precision is int8, but the layers run in torch." in caplog.text
    assert "no VNNI" in caplog.text


def test_int8_needs_calibration_and_a_cpu(shapes: Path, shapes_mar: Path, tmp_path: Path) -> None:
    expected = r"not calibrated; build it with `d2serve archive --precision int8 --calibration"
    with pytest.raises(SettingsError, match=expected):
        d2serve.load(shapes_mar, precision="int8")
    with pytest.raises(SettingsError, match=expected):
        build(shapes, tmp_path, None, [])
    assert not list(tmp_path.iterdir())
    with pytest.raises(SettingsError, match="'int8', which is for CPUs; on a GPU use bf16"):
        choose_dtype("int8", torch.device("cuda"))


@needs_int8
def test_folders_without_usable_images_are_rejected(shapes: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    with pytest.raises(CommandError, match="images: expected a folder of images"):
        build(shapes, tmp_path, images, [])
    images.mkdir()
    (images / ".hidden").touch()
    with pytest.raises(CommandError, match="images: the folder is empty"):
        build(shapes, tmp_path, images, [])
    (images / "notes.txt").write_text("not an image")
    with pytest.raises(CommandError, match=r"calibration image .*notes\.txt: .*, or remove it"):
        build(shapes, tmp_path, images, [])


def test_many_images_are_thinned_evenly(tmp_path: Path) -> None:
    for index in range(2 * MAX_IMAGES + 1):
        (tmp_path / f"{index:03}.png").touch()
    chosen = [int(path.stem) for path in image_files(tmp_path)]
    assert len(chosen) == MAX_IMAGES
    assert chosen[:3] == [0, 2, 4]
    assert chosen[-1] >= 2 * MAX_IMAGES - 2


@needs_int8
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format_version": 2}, "format_version is 2, expected 1"),
        ({"inputs": {"backbone": [0.0, 3]}}, "the scale of backbone is 0.0"),
        ({"outputs": {"backbone": [0.1, 256]}}, "the zero point of backbone is 256"),
        ({"outputs": {"backbone": [0.1]}}, "ValueError"),
        ({"kept": None}, "TypeError"),
    ],
)
def test_damaged_calibrations_are_rejected(
    change: dict[str, object], problem: str, model_folder: Path, tmp_path: Path
) -> None:
    content = json.loads((model_folder / CALIBRATION_FILE).read_text())
    (tmp_path / CALIBRATION_FILE).write_text(json.dumps({**content, **change}))
    with pytest.raises(ConfigError, match=f"{problem}.*build the archive again"):
        read_calibration(tmp_path)


def build(shapes: Path, folder: Path, images: Path | None, lines: list[str]) -> Path:
    return build_archive(
        shapes / "config.yaml",
        shapes / "model_final.pth",
        folder / "shapes.mar",
        class_names=shapes / "classes.json",
        model_config=INT8,
        calibration=images,
        report=lines.append,
    )
