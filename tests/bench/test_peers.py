"""The comparison with OpenVINO and ONNX Runtime, without these packages."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bench import peers
from d2serve.errors import CommandError
from d2serve.model.fpn import FPN
from d2serve.model.optimize import optimize
from tests.goldens.cases import TINY


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == "nncf" else object())
    with pytest.raises(CommandError, match=r"nncf: not installed; pip install 'd2serve\[peers\]'"):
        peers.main(["--quick", "--output", str(tmp_path)])


@pytest.mark.parametrize("name", ["mask_rcnn_r50", "retinanet"])
def test_the_exported_pyramid_equals_the_network(name: str) -> None:
    [golden] = [each for each in TINY if each.name == name]
    fpn = optimize(golden.build()).backbone
    assert isinstance(fpn, FPN)
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        levels = fpn(images)
        exported = peers.Exported(fpn)(images)
    for found, level in zip(exported, sorted(levels), strict=True):
        torch.testing.assert_close(found, levels[level])


def test_the_difference_is_the_largest_of_all_levels() -> None:
    exact = [np.array([3.0, 4.0], np.float32), np.array([1.0], np.float32)]
    outputs = [torch.tensor([3.0, 4.5]), np.array([1.2], np.float32)]
    assert peers._difference(outputs, exact) == "largest difference 0.5, relative 20.00%"
