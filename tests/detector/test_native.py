"""The native detector: number types and resizing on the device."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from d2serve.detections import Detections, RGBImage
from d2serve.detector import native
from d2serve.detector.native import NativeDetector, choose_dtype
from d2serve.errors import SettingsError
from d2serve.settings import Settings
from tests.goldens.cases import TRAINED
from tests.goldens.comparison import assert_close_to_upstream
from tests.goldens.results import read_result

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
BOX_TOLERANCE_PX = 0.1
SCORE_TOLERANCE = 3e-3


def set_cpu_flags(flags: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = folder / "cpuinfo"
    features.write_text(flags, encoding="ascii")
    monkeypatch.setattr(native, "CPU_INFO", features)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 avx512_vnni", torch.bfloat16),
        ("flags\t\t: fpu avx512f amx_bf16 amx_tile", torch.bfloat16),
        ("Features\t: fp asimd bf16 i8mm", torch.bfloat16),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni", torch.float32),
    ],
)
def test_auto_on_a_cpu_depends_on_its_flags(
    flags: str, expected: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_cpu_flags(flags, tmp_path, monkeypatch)
    assert choose_dtype("auto", CPU) is expected
    assert choose_dtype("fp32", CPU) is torch.float32


def test_auto_is_fp32_if_the_system_reports_no_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "CPU_INFO", tmp_path / "absent")
    assert choose_dtype("auto", CPU) is torch.float32


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((9, 0), torch.bfloat16),
        ((8, 0), torch.bfloat16),
        ((7, 5), torch.float16),
        ((7, 0), torch.float16),
        ((6, 1), torch.float32),
    ],
)
def test_auto_on_a_gpu_depends_on_its_capability(
    capability: tuple[int, int], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert choose_dtype("auto", GPU) is expected
    assert choose_dtype("fp16", GPU) is torch.float16


def test_fp16_on_the_cpu_is_rejected() -> None:
    with pytest.raises(SettingsError, match=r"fp16.*for GPUs; on the CPU use fp32, bf16 or auto"):
        choose_dtype("fp16", CPU)


@pytest.mark.parametrize("is_native", [True, False])
def test_emulated_bf16_is_logged(
    is_native: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    set_cpu_flags("avx512_bf16" if is_native else "avx2", tmp_path, monkeypatch)
    assert choose_dtype("bf16", CPU) is torch.bfloat16
    assert ("fp32 is faster" in caplog.text) is not is_native


@pytest.mark.parametrize("image", TRAINED.images, ids=lambda path: path.stem)
def test_bf16_results_are_close_to_detectron2(image: Path) -> None:
    detector = NativeDetector(TRAINED.build(), CPU, Settings(precision="bf16"))
    [result] = detector.detect([np.array(Image.open(image).convert("RGB"))])
    assert isinstance(result.output, Detections)
    assert_close_to_upstream(result.output, read_result(TRAINED.result_path(image)))


def detector(resize: str) -> NativeDetector:
    return NativeDetector(TRAINED.build(), torch.device("cpu"), Settings(resize=resize))


def images() -> list[RGBImage]:
    """The samples, and larger copies, which the network downscales."""
    opened = [Image.open(path).convert("RGB") for path in TRAINED.images]
    larger = [each.resize((each.width * 3 // 2, each.height * 3 // 2)) for each in opened[:3]]
    return [np.array(image) for image in (*opened, *larger)]


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Detections, Detections]]:
    found = []
    for resize in ("pil", "device"):
        results = detector(resize).detect(images())
        found.append([result.output for result in results])
    both = list(zip(*found, strict=True))
    assert all(isinstance(each, Detections) for pair in both for each in pair)
    return both


def test_resizing_on_the_device_gives_close_results(
    pairs: list[tuple[Detections, Detections]],
) -> None:
    for pillow, device in pairs:
        assert len(pillow) > 0
        assert device.size_hw == pillow.size_hw
        np.testing.assert_array_equal(device.classes, pillow.classes)
        np.testing.assert_allclose(device.boxes_xyxy, pillow.boxes_xyxy, atol=BOX_TOLERANCE_PX)
        np.testing.assert_allclose(device.scores, pillow.scores, atol=SCORE_TOLERANCE)


def test_resizing_on_the_device_differs_from_pillow(
    pairs: list[tuple[Detections, Detections]],
) -> None:
    assert any((pillow.scores != device.scores).any() for pillow, device in pairs)


def test_images_are_grouped_by_their_resized_sizes() -> None:
    sizes_hw = [(240, 320), (480, 640), (320, 240), (360, 480)]
    mixed = [np.full((*size_hw, 3), 127, dtype=np.uint8) for size_hw in sizes_hw]
    batches = [
        [result.batch for result in detector(resize).detect(mixed)] for resize in ("pil", "device")
    ]
    assert batches == [[3, 3, 1, 3]] * 2


def test_warm_up_with_resizing_on_the_device() -> None:
    detector("device").warm_up()
