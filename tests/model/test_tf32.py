"""Float32 networks run without TF32, and leave PyTorch's flags unchanged."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from d2serve.model.meta_arch import GeneralizedRCNN
from d2serve.model.optimize import optimize
from d2serve.model.structures import ModelOutput
from d2serve.model.tf32 import full_float32
from tests.goldens.cases import TINY

SIZE_HW = (64, 64)


def flags() -> dict[str, Any]:
    """All flags for the precision of float32 and for cuDNN."""
    cudnn = torch.backends.cudnn
    return {
        "convolutions": cudnn.allow_tf32,
        "products": torch.backends.cuda.matmul.allow_tf32,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "enabled": cudnn.enabled,
        "benchmark": cudnn.benchmark,
        "deterministic": cudnn.deterministic,
    }


@pytest.fixture(autouse=True)
def _restore_flags() -> Iterator[None]:
    before = flags()
    yield
    torch.backends.cudnn.allow_tf32 = before["convolutions"]
    torch.backends.cudnn.benchmark = before["benchmark"]
    torch.set_float32_matmul_precision(before["matmul_precision"])


@pytest.mark.parametrize("convolutions", [True, False])
@pytest.mark.parametrize("products", ["highest", "high", "medium"])
def test_tf32_is_off_inside_the_block_and_restored_after_it(
    convolutions: bool, products: str
) -> None:
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision(products)
    before = flags()
    with full_float32():
        expected = {"convolutions": False, "products": False, "matmul_precision": "highest"}
        assert flags() == before | expected
    assert flags() == before


def test_flags_are_restored_after_an_error() -> None:
    torch.set_float32_matmul_precision("high")
    before = flags()
    with pytest.raises(RuntimeError, match="failed"), full_float32():
        raise RuntimeError("failed")
    assert flags() == before


def test_of_overlapping_blocks_the_last_one_restores_the_flags() -> None:
    torch.set_float32_matmul_precision("high")
    before = flags()
    inside, leave = threading.Event(), threading.Event()

    def other_thread() -> None:
        with full_float32():
            inside.set()
            leave.wait(timeout=10)

    thread = threading.Thread(target=other_thread)
    with full_float32():
        thread.start()
        assert inside.wait(timeout=10)
    assert not flags()["convolutions"]
    assert not flags()["products"]
    leave.set()
    thread.join()
    assert flags() == before


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="since PyTorch 2.9")
def test_fp32_precision_is_restored_after_the_block() -> None:
    backends: Any = torch.backends
    convolutions, products = backends.cudnn.conv, backends.cuda.matmul
    saved = products.fp32_precision
    backends.fp32_precision = products.fp32_precision = "tf32"
    try:
        with full_float32():
            assert convolutions.fp32_precision != "tf32"
            assert products.fp32_precision != "tf32"
        assert convolutions.fp32_precision == products.fp32_precision == "tf32"
    finally:
        backends.fp32_precision = "none"
        products.fp32_precision = saved


@pytest.mark.parametrize(
    ("dtype", "uses_tf32"), [(torch.float32, False), (torch.bfloat16, True)], ids=["fp32", "bf16"]
)
def test_only_a_float32_network_turns_tf32_off(dtype: torch.dtype, uses_tf32: bool) -> None:
    [golden] = [golden for golden in TINY if golden.name == "mask_rcnn_r50"]
    model = optimize(golden.build(), dtype)
    assert isinstance(model, GeneralizedRCNN)
    torch.set_float32_matmul_precision("high")
    before = flags()
    seen = []

    def record(*_: object) -> None:
        seen.append((flags()["convolutions"], flags()["products"]))

    model.backbone.register_forward_hook(record)
    model.roi_heads.register_forward_hook(record)
    outputs = run(model, [SIZE_HW])
    assert len(outputs) == 1
    assert seen == [(uses_tf32, uses_tf32)] * 2
    assert flags() == before


def run(model: GeneralizedRCNN, sizes_hw: Sequence[tuple[int, int]]) -> list[ModelOutput]:
    random = np.random.default_rng(0)
    images: list[Tensor] = [
        torch.from_numpy(random.integers(0, 256, (3, *size), dtype=np.uint8)) for size in sizes_hw
    ]
    return model(images, sizes_hw)
