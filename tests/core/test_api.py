"""The public Python API: `d2serve.load`, `Model.predict`, and what the package exports."""

import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import d2serve
from d2serve import Detections, ImageError, Model, RequestError
from d2serve.building.package import build_package
from d2serve.detector.base import InferenceResult
from d2serve.errors import ArchiveError, ConfigError, SettingsError
from d2serve.serving import archive_files
from d2serve.serving.integrity import format_sums, sha256_of
from tests.bodies import image_bytes, npy_bytes
from tests.environment import clean_environment

OUTSIDE = "../evil.py"


@pytest.fixture(scope="module")
def model(shapes_mar: Path) -> Iterator[Model]:
    with d2serve.load(shapes_mar) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def sample(shapes: Path) -> Path:
    return shapes / "samples" / "shapes_02.png"


@pytest.fixture(scope="module")
def unpacked(shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    archive_files.unpack_archive(shapes_mar, folder)
    return folder


def assert_equal(one: Detections, other: Detections) -> None:
    assert len(one) > 0
    assert one.class_names == other.class_names
    np.testing.assert_array_equal(one.boxes_xyxy, other.boxes_xyxy)
    np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_array_equal(one.masks_dense(), other.masks_dense())


def test_archive_package_and_folder_give_equal_results(
    model: Model, shapes_mar: Path, unpacked: Path, sample: Path
) -> None:
    package = build_package(shapes_mar).path
    [expected] = model.predict(sample)
    for source in (package, unpacked, str(unpacked)):
        with d2serve.load(source) as other:
            assert other.class_names == model.class_names
            assert_equal(other.predict(sample)[0], expected)


def test_kinds_of_images_give_equal_results(model: Model, sample: Path) -> None:
    image = Image.open(sample).convert("RGB")
    pixels = np.asarray(image)
    images: list[Any] = [
        sample,
        str(sample),
        sample.read_bytes(),
        bytearray(sample.read_bytes()),
        image,
        pixels,
        pixels.transpose(2, 0, 1),
        pixels.astype(np.float32) / 255,
        npy_bytes(pixels),
    ]
    results = model.predict(iter(images))
    assert len(results) == len(images)
    for single, detections in zip(images, results, strict=True):
        assert_equal(detections, results[0])
        assert_equal(model.predict(single)[0], detections)


def test_array_with_leading_n_counts_as_n_images(model: Model, sample: Path) -> None:
    pixels = np.asarray(Image.open(sample).convert("RGB"))
    results = model.predict([np.stack([pixels, np.zeros_like(pixels)]), sample])
    assert [len(results[0]) > 0, len(results[1]) > 0, len(results[2]) > 0] == [True, False, True]
    assert_equal(results[2], results[0])


def test_number_of_images_is_not_limited(shapes_mar: Path) -> None:
    settings = {"max_images_per_request": 1, "max_request_pixels": 1, "max_request_bytes": 1}
    with d2serve.load(shapes_mar, settings=settings) as model:
        assert len(model.predict(np.zeros((3, 32, 32, 3), np.uint8))) == 3


def test_bgr_arrays(model: Model, sample: Path) -> None:
    pixels = np.asarray(Image.open(sample).convert("RGB"))
    [expected] = model.predict(pixels)
    assert_equal(model.predict(pixels[:, :, ::-1], input_color="bgr")[0], expected)


def test_exif_orientation_is_applied(model: Model, sample: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(sample).convert("RGB")
    turned = image_bytes(image, "PNG", exif=exif)
    [from_bytes] = model.predict(turned)
    opened = Image.open(io.BytesIO(turned))
    assert_equal(model.predict(opened)[0], from_bytes)
    assert from_bytes.size_hw == (image.width, image.height)
    assert opened.getexif()[0x0112] == 6, "the caller's image is unchanged"


def test_detections_have_names_and_convert_to_coco(model: Model, sample: Path) -> None:
    [detections] = model.predict(sample)
    assert detections.class_names == tuple(model.class_names[i] for i in detections.classes)
    results = detections.to_coco(image_id=7)
    assert len(results) == len(detections)
    assert results[0].keys() == {"image_id", "category_id", "bbox", "score", "segmentation"}
    assert detections.masks_dense().shape == (len(detections), *detections.size_hw)


def test_options_filter_detections(model: Model, sample: Path) -> None:
    [everything] = model.predict(sample)
    assert len(model.predict(sample, max_detections=2)[0]) == 2
    [sure] = model.predict(sample, score_threshold=0.95)
    assert 0 < len(sure) <= len(everything)
    assert (sure.scores >= np.float32(0.95)).all()
    [stars] = model.predict(sample, classes=["star"])
    assert set(stars.class_names) == {"star"}


def test_default_options_of_settings_apply(shapes_mar: Path, sample: Path) -> None:
    settings = {"max_detections": 1, "masks": "none"}
    with d2serve.load(shapes_mar, settings=settings) as model:
        [detections] = model.predict(sample)
        assert (len(detections), len(model.predict(sample, max_detections=3)[0])) == (1, 3)
        assert detections.masks is not None


def test_invalid_option_is_an_error_with_the_valid_values(model: Model, sample: Path) -> None:
    with pytest.raises(RequestError, match="score_threshold must be a number from"):
        model.predict(sample, score_threshold=2)
    with pytest.raises(RequestError, match="or the names circle, triangle"):
        model.predict(sample, classes=["cat"])


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(b"\x89PNG damaged", id="damaged"),
        pytest.param(b"no image", id="unknown format"),
        pytest.param(b"", id="empty"),
        pytest.param(np.zeros((4, 5, 6, 7, 3)), id="wrong rank"),
        pytest.param(np.full((8, 8, 3), np.nan), id="nan"),
        pytest.param(Image.new("F", (8, 8)), id="32 bits per channel"),
    ],
)
def test_image_that_cannot_be_decoded_is_named_by_its_position(
    model: Model, sample: Path, image: Any
) -> None:
    with pytest.raises(ImageError, match=r"^image 2: ") as raised:
        model.predict([sample, sample, image])
    assert raised.value.position == 2
    copied = pickle.loads(pickle.dumps(raised.value))
    assert (str(copied), copied.position) == (str(raised.value), 2)
    assert isinstance(raised.value, d2serve.D2ServeError)


def test_truncated_pil_image_is_an_image_error(model: Model, sample: Path) -> None:
    opened = Image.open(io.BytesIO(sample.read_bytes()[:5000]))
    with pytest.raises(ImageError, match="image 0: the image cannot be decoded"):
        model.predict(opened)


def test_image_with_too_many_pixels_is_an_image_error(shapes_mar: Path, sample: Path) -> None:
    with d2serve.load(shapes_mar, settings={"max_image_pixels": 100}) as model:
        for image in (sample, Image.new("RGB", (11, 10)), np.zeros((11, 10, 3), np.uint8)):
            with pytest.raises(ImageError, match="the limit is 100 pixels"):
                model.predict(image)


def test_other_errors_are_raised_unchanged(
    model: Model, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        model.predict(sample.with_name("absent.png"))
    with pytest.raises(TypeError, match="an image is a int, expected a numpy array"):
        model.predict([3])  # type: ignore[list-item]

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("no memory to decode")

    with monkeypatch.context() as patch:
        patch.setattr("d2serve.inputs.images.decode_with_pillow", fail)
        with pytest.raises(MemoryError, match="no memory to decode"):
            model.predict(sample)


def test_error_of_the_network_is_raised_unchanged(
    shapes_mar: Path, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with d2serve.load(shapes_mar) as model:
        detector: Any = model._detector

        def fail(*_: object) -> list[InferenceResult]:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(detector.runner, "network", fail)
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            model.predict([sample, sample])


def test_closed_model_cannot_predict(shapes_mar: Path, sample: Path) -> None:
    model = d2serve.load(shapes_mar)
    model.close()
    model.close()
    with pytest.raises(ValueError, match="the model is closed"):
        model.predict(sample)


def test_precision_and_settings_win_over_the_archive(shapes_mar: Path, sample: Path) -> None:
    with d2serve.load(shapes_mar, precision="bf16") as model:
        assert len(model.predict(sample)[0]) > 0
    with pytest.raises(SettingsError, match="precision is 'fp8', expected one of fp32"):
        d2serve.load(shapes_mar, precision="fp8")
    with pytest.raises(SettingsError, match="setting size does not exist"):
        d2serve.load(shapes_mar, settings={"size": 7})


def test_loading_has_no_global_effects(
    shapes_mar: Path, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("D2SERVE_PADDING", "nonsense, which only servers read")
    environment, threads = dict(os.environ), torch.get_num_threads()
    with d2serve.load(shapes_mar, settings={"threads": threads + 1}) as model:
        model.predict(sample)
    assert dict(os.environ) == environment
    assert torch.get_num_threads() == threads


def test_temporary_folder_is_removed_after_loading(
    shapes_mar: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with d2serve.load(shapes_mar) as model:
        assert list(tmp_path.iterdir()) == []
        assert len(model.predict(sample)[0]) > 0


def test_changed_file_is_named(shapes_mar: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    archive_files.unpack_archive(shapes_mar, folder)
    weights = folder / "model" / "weights.pt"
    weights.write_bytes(weights.read_bytes() + b"\0")
    with pytest.raises(ArchiveError, match=r"changed 'model/weights\.pt'"):
        d2serve.load(folder)
    repacked = tmp_path / "changed.mar"
    with zipfile.ZipFile(repacked, "w") as packed:
        for file in folder.rglob("*"):
            packed.write(file, file.relative_to(folder))
    with pytest.raises(ArchiveError, match=r"changed\.mar: .* changed 'model/weights\.pt'"):
        d2serve.load(repacked)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "does not exist", id="missing"),
        pytest.param(b"text", "neither a .mar archive nor a .tar.gz package", id="other file"),
        pytest.param(b"\x1f\x8b damaged", "cannot be unpacked", id="damaged package"),
    ],
)
def test_file_that_is_no_archive(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "m.mar"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArchiveError, match=message):
        d2serve.load(path)


def test_archive_with_a_path_outside_is_rejected(tmp_path: Path) -> None:
    archive, package = tmp_path / "evil.mar", tmp_path / "evil.tar.gz"
    with zipfile.ZipFile(archive, "w") as packed_zip:
        packed_zip.writestr(OUTSIDE, b"evil")
    with tarfile.open(package, "w:gz") as packed_tar:
        packed_tar.addfile(tarfile.TarInfo(OUTSIDE), io.BytesIO())
    for path in (archive, package):
        with pytest.raises(ArchiveError, match="which is a path that leads out of it"):
            d2serve.load(path)


def test_bombs_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_files, "SMALL_BYTES", 100_000)
    archive, package = tmp_path / "bomb.mar", tmp_path / "bomb.tar.gz"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed_zip:
        packed_zip.writestr("weights.pt", bytes(5_000_000))
    with tarfile.open(package, "w:gz") as packed_tar:
        entry = tarfile.TarInfo("weights.pt")
        entry.size = 5_000_000
        packed_tar.addfile(entry, io.BytesIO(bytes(5_000_000)))
    for path in (archive, package):
        with pytest.raises(ArchiveError, match="unpacks to more than"):
            d2serve.load(path)


def test_exports() -> None:
    assert set(d2serve.__all__) <= set(dir(d2serve))
    for name in d2serve.__all__:
        assert getattr(d2serve, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = d2serve.nonsense  # type: ignore[attr-defined]


def test_version_is_that_of_the_installed_package() -> None:
    assert d2serve.__version__ == version("d2serve")


def test_import_is_fast_and_works_in_an_archive(unpacked: Path) -> None:
    script = """
import sys
import d2serve
assert not {"torch", "numpy", "PIL"} & set(sys.modules), "imported before it is needed"
print(d2serve.__file__)
d2serve.load, d2serve.Model, d2serve.Detections
try:
    d2serve.build_archive
except ModuleNotFoundError as error:
    print(error)
"""
    environment = {**clean_environment(), "PYTHONPATH": str(unpacked)}
    command = [sys.executable, "-c", script]
    printed = subprocess.check_output(command, text=True, env=environment, cwd=unpacked)
    assert printed.splitlines() == [
        str(unpacked / "d2serve" / "__init__.py"),
        "No module named 'd2serve.building'",
    ]


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:99", "device is 'cuda:99', expected cpu, or cuda:N with N below"),
        ("meta", "device is 'meta', expected cpu"),
        ("nothing", "device is 'nothing', expected cpu, cuda or cuda:N"),
    ],
)
def test_device_that_does_not_exist(shapes_mar: Path, device: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        d2serve.load(shapes_mar, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_gpu_that_does_not_exist(shapes_mar: Path) -> None:
    with pytest.raises(SettingsError, match="finds no CUDA GPU here; use cpu"):
        d2serve.load(shapes_mar, device="cuda")


def test_options_may_be_numpy_numbers(model: Model, sample: Path) -> None:
    [all_classes] = model.predict(sample)
    [chosen] = model.predict(
        sample, classes=all_classes.classes[:1], score_threshold=np.float32(0.75)
    )
    assert 1 <= len(chosen) < len(all_classes)
    assert set(chosen.classes) == {all_classes.classes[0]}


def test_archive_of_an_earlier_version(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"")
    sums = {"weights.pt": sha256_of(tmp_path / "weights.pt")}
    (tmp_path / "SHA256SUMS").write_text(format_sums(sums), encoding="utf-8")
    with pytest.raises(ConfigError, match="an earlier version built the archive; build"):
        d2serve.load(tmp_path)
