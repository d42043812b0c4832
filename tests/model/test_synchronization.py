"""The number of times that a forward pass synchronizes with a GPU, counted on the CPU.

RoIAlign and NMS run here as on a GPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.ops
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from d2serve.detector.model_outputs import copy_to_host
from d2serve.model import nms, poolers
from d2serve.model.config import RCNNConfig
from d2serve.model.meta_arch import build_network
from d2serve.model.network import Network
from d2serve.model.optimize import optimize
from d2serve.torchvision_ops import NMS
from tests.goldens.cases import TINY

BY_NAME = {golden.name: golden for golden in TINY}
SIZE_HW = (120, 160)
# NMS of proposals and their counts; pyramid levels of boxes, of masks and of keypoints; candidates,
# their NMS and their counts; sizes of boxes with keypoints.
MAX_SYNCS = 10
SYNCHRONIZING = {
    *("item", "_local_scalar_dense", "is_nonzero", "equal"),
    *("nonzero", "nonzero_numpy", "masked_select", "unique", "_unique2", "bincount", "nms"),
}


class SyncCounter(TorchDispatchMode):
    """Records operations that return a size or value to the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.name().split("::")[1].split(".")[0]
        by_mask = name.startswith("index") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)
            for index in (args[1] if isinstance(args[1], list | tuple) else ())
        )
        finds_indices = name == "where" and len(args) == 1
        if name in SYNCHRONIZING or by_mask or finds_indices:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def recorded_syncs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Record synchronizing operations and conversions of tensors to lists."""
    counter = SyncCounter()
    plain = Tensor.tolist

    def tolist(tensor: Tensor) -> Any:
        counter.seen.append("tolist")
        return plain(tensor)

    with monkeypatch.context() as patch, counter:
        patch.setattr(Tensor, "tolist", tolist)
        yield counter.seen


@pytest.fixture(autouse=True)
def _compute_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    NMS.load()  # the first call checks the operator
    monkeypatch.setattr(nms, "nms_per_level_cpu", nms.nms_per_level_gpu)
    monkeypatch.setattr(nms, "class_wise_nms_cpu", nms.class_wise_nms_gpu)
    monkeypatch.setattr(nms, "select_best", nms.select_best_gpu)
    monkeypatch.setattr(poolers, "roi_align", torchvision.ops.roi_align)


def sample_images(count: int) -> list[Tensor]:
    """The same image several times, because the steps of parallel NMS depend on the content."""
    pixels = np.random.default_rng(5).integers(0, 256, (3, *SIZE_HW), dtype=np.uint8)
    return [torch.from_numpy(pixels)] * count


def count_syncs(
    model: Network, count: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], int]:
    """The synchronizing operations and the number of instances for `count` images."""
    images, sizes_hw = sample_images(count), [SIZE_HW] * count
    with recorded_syncs(monkeypatch) as seen:
        found = copy_to_host(model(images, sizes_hw))
    return seen, sum(len(image["scores"]) for image in found)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_more_images_need_no_more_syncs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = optimize(BY_NAME[name].build())
    one, few = count_syncs(model, 1, monkeypatch)
    four, many = count_syncs(model, 4, monkeypatch)
    # Rounding differs between batches, and may move a score across the threshold.
    assert many >= 3.5 * few or "semantic" in name
    assert len(four) == len(one) <= MAX_SYNCS, (one, four)


@pytest.mark.parametrize("name", ["mask_rcnn_r50", "keypoint_rcnn"])
def test_more_instances_need_no_more_syncs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = BY_NAME[name]
    model = golden.build()
    family = model.config.family
    assert isinstance(family, RCNNConfig)
    selection = replace(family.roi_heads.selection, max_detections=2)
    heads = replace(family.roi_heads, selection=selection)
    strict = build_network(replace(model.config, family=replace(family, roi_heads=heads))).eval()
    strict.load_state_dict(model.state_dict())
    few, two = count_syncs(optimize(strict), 1, monkeypatch)
    many, more = count_syncs(optimize(model), 1, monkeypatch)
    assert two == 2 < more
    assert len(few) == len(many)
