"""How often a forward would have the host wait for a GPU, counted on the CPU.

What a GPU computes in its own way (RoIAlign, suppression within a level) takes that way here.
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

from d2serve.detector.native import detections_of
from d2serve.model import nms, rpn
from d2serve.model import poolers as pooler
from d2serve.model.config import RCNNConfig
from d2serve.model.meta_arch import build_network
from d2serve.model.network import Network
from d2serve.model.optimise import optimise
from tests.goldens.cases import TINY

BY_NAME = {golden.name: golden for golden in TINY}
SIZE_HW = (120, 160)
# Suppression of proposals and its counts; levels of boxes and again of masks and of keypoints;
# candidates, their suppression and its counts; sizes of keypoints' boxes.
MOST_WAITS = 10
WAITING = {
    *("item", "_local_scalar_dense", "is_nonzero", "equal"),
    *("nonzero", "nonzero_numpy", "masked_select", "unique", "_unique2", "bincount", "nms"),
}


class Waits(TorchDispatchMode):
    """Counts operations whose result's size or value the host has to know."""

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
        places = name == "where" and len(args) == 1
        if name in WAITING or by_mask or places:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Operations that wait, and lists made of tensors."""
    waits = Waits()
    plain = Tensor.tolist

    def tolist(tensor: Tensor) -> Any:
        waits.seen.append("tolist")
        return plain(tensor)

    with monkeypatch.context() as patch, waits:
        patch.setattr(Tensor, "tolist", tolist)
        yield waits.seen


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_parallel(levels: list[Tensor], threshold: float) -> list[Tensor]:
        return nms.pad_and_suppress(levels, threshold)

    monkeypatch.setattr(rpn, "nms_of_levels", in_parallel)
    monkeypatch.setitem(nms.PAIRWISE_VALUES, "cpu", nms.PAIRWISE_VALUES["cuda"])
    monkeypatch.setattr(pooler, "roi_align", torchvision.ops.roi_align)


def pictures(count: int) -> list[Tensor]:
    """The same one, as the steps of suppression in parallel depend on what is in a picture."""
    pixels = np.random.default_rng(5).integers(0, 256, (3, *SIZE_HW), dtype=np.uint8)
    return [torch.from_numpy(pixels)] * count


def waits_of(model: Network, count: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], int]:
    """What waits in a forward of so many pictures, and how many instances it finds."""
    images, sizes_hw = pictures(count), [SIZE_HW] * count
    with counted(monkeypatch) as seen:
        found = detections_of(model(images, sizes_hw), sizes_hw)
    return seen, sum(map(len, found))


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_more_pictures_wait_no_oftener(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = optimise(BY_NAME[name].build())
    one, few = waits_of(model, 1, monkeypatch)
    four, many = waits_of(model, 4, monkeypatch)
    assert many >= 4 * few or "semantic" in name
    assert len(four) == len(one) <= MOST_WAITS, (one, four)


@pytest.mark.parametrize("name", ["mask_rcnn_r50", "keypoint_rcnn"])
def test_more_instances_wait_no_oftener(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = BY_NAME[name]
    model = golden.build()
    family = model.config.family
    assert isinstance(family, RCNNConfig)
    selection = replace(family.roi_heads.selection, max_detections=2)
    heads = replace(family.roi_heads, selection=selection)
    strict = build_network(replace(model.config, family=replace(family, roi_heads=heads))).eval()
    strict.load_state_dict(model.state_dict())
    few, two = waits_of(optimise(strict), 1, monkeypatch)
    many, more = waits_of(optimise(model), 1, monkeypatch)
    assert two == 2 < more
    assert len(few) == len(many)
