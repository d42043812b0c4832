"""The comparison with OpenVINO and ONNX Runtime, without these packages."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bench import layers, parts, peers
from d2serve.errors import CommandError
from d2serve.model.fpn import FPN
from d2serve.model.meta_arch import GeneralizedRCNN
from d2serve.model.optimize import optimize
from d2serve.model.packed_conv import pack
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
        exported = parts.ExportedPyramid(fpn)(images)
    for found, level in zip(exported, sorted(levels), strict=True):
        torch.testing.assert_close(found, levels[level])


def test_the_parts_for_the_export_equal_those_of_the_packed_network() -> None:
    [golden] = [each for each in TINY if each.name == "mask_rcnn_r50"]
    network = optimize(golden.build())
    assert isinstance(network, GeneralizedRCNN)
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = parts.parts_of(network, images)
        expected = [part.exported(*part.inputs) for part in found]
        pack(network)
        for part, outputs in zip(found, expected, strict=True):
            for one, other in zip(part.run(network, part.inputs), outputs, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert [part.name for part in found] == ["backbone", "RPN head", "box head", "mask head"]
    assert all(len(part.inputs[0]) > 0 for part in found)


def test_the_difference_is_the_largest_of_all_levels() -> None:
    exact = [np.array([3.0, 4.0], np.float32), np.array([1.0], np.float32)]
    outputs = [torch.tensor([3.0, 4.5]), np.array([1.2], np.float32)]
    assert peers._difference(outputs, exact) == "largest difference 0.5, relative 20.00%"


@pytest.mark.parametrize(
    ("node", "kind", "layer", "group"),
    [
        (
            "/bottom_up/res2/res2.0/conv1/Conv/WithoutBiases",
            "Convolution",
            "bottom_up.res2.0.conv1",
            "res2 conv1",
        ),
        ("/bottom_up/stem/conv1/Conv/WithoutBiases", "Convolution", "bottom_up.stem.conv1", "stem"),
        ("/bottom_up/stem/MaxPool", "MaxPool", "bottom_up.stem", "stem"),
        ("/fpn_output2/Conv/WithoutBiases", "Convolution", "fpn_output2", "fpn_output2"),
        ("/Resize_1", "Interpolate", layers.UPSAMPLING, layers.UPSAMPLING),
        ("/fpn_output2/Conv_abcd/sink", "Reorder", layers.REORDERS, layers.REORDERS),
    ],
)
def test_nodes_of_openvino_have_the_names_of_the_layers(
    node: str, kind: str, layer: str, group: str
) -> None:
    assert layers.layer_of(node, kind) == layer
    assert layers.group_of(layer) == group


def test_a_profile_covers_every_convolution_of_both() -> None:
    [golden] = [each for each in TINY if each.name == "mask_rcnn_r50"]
    backbone = optimize(golden.build()).backbone
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        gflop = layers.operations(backbone, images)
        pack(backbone)
        before = backbone(images)
        times = layers.our_times(backbone, images)
        for name, level in backbone(images).items():
            torch.testing.assert_close(level, before[name], rtol=0, atol=0)
    found = {layers.group_of(name) for name in times} - {layers.ADDITIONS}
    assert found == {layers.group_of(name) for name in gflop}
    assert all(seconds > 0 for seconds in times.values())
    per_channel = 2e-9 * 3 * 7 * 7 * 32 * 48
    channels = golden.build().get_submodule("backbone.bottom_up.stem.conv1").out_channels
    assert gflop["bottom_up.stem.conv1"] == pytest.approx(channels * per_channel)  # type: ignore[operator]
