"""Which number type is taken where, and that answers stay close."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from d2serve.detections import Detections
from d2serve.detector import precision
from d2serve.detector.native import NativeDetector
from d2serve.detector.precision import choose_dtype
from d2serve.settings import Settings, SettingsError
from tests.goldens.answers import read_answer
from tests.goldens.cases import TRAINED
from tests.goldens.comparison import assert_close_to_upstream

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def cpu_says(flags: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = folder / "cpuinfo"
    facts.write_text(flags, encoding="ascii")
    monkeypatch.setattr(precision, "CPU_FACTS", facts)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 avx512_vnni", torch.bfloat16),
        ("flags\t\t: fpu avx512f amx_bf16 amx_tile", torch.bfloat16),
        ("Features\t: fp asimd bf16 i8mm", torch.bfloat16),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni", torch.float32),
    ],
)
def test_auto_is_what_the_cpu_has(
    flags: str, expected: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu_says(flags, tmp_path, monkeypatch)
    assert choose_dtype("auto", CPU) is expected
    assert choose_dtype("fp32", CPU) is torch.float32


def test_a_system_that_does_not_say_it_counts_as_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "CPU_FACTS", tmp_path / "absent")
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
def test_auto_is_what_the_gpu_has(
    capability: tuple[int, int], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert choose_dtype("auto", GPU) is expected
    assert choose_dtype("fp16", GPU) is torch.float16


def test_float16_on_the_cpu_is_refused_with_what_to_use() -> None:
    with pytest.raises(SettingsError, match=r"fp16.*for GPUs; on the CPU use fp32, bf16 or auto"):
        choose_dtype("fp16", CPU)


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_that_is_emulated_is_told(
    native: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cpu_says("avx512_bf16" if native else "avx2", tmp_path, monkeypatch)
    assert choose_dtype("bf16", CPU) is torch.bfloat16
    assert ("fp32 is quicker" in caplog.text) is not native


@pytest.mark.parametrize("picture", TRAINED.pictures, ids=lambda path: path.stem)
def test_answers_in_bfloat16_are_close_to_upstreams(picture: Path) -> None:
    detector = NativeDetector(TRAINED.build(), CPU, Settings(precision="bf16"))
    [outcome] = detector.detect([np.array(Image.open(picture).convert("RGB"))])
    assert isinstance(outcome.found, Detections)
    assert_close_to_upstream(outcome.found, read_answer(TRAINED.answer_path(picture)))
