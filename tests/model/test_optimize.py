"""An optimized network has the same results as before."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from d2serve.model.box_head import BoxPredictor
from d2serve.model.deformable_conv import DeformConv2d, OffsetConv2d
from d2serve.model.layers import Conv2d, FrozenBatchNorm2d
from d2serve.model.network import Network
from d2serve.model.optimize import fold_norms, optimize
from tests.goldens.cases import TINY

FCOS = ("fcos", "condinst", "center_mask_vovnet")
TRANSFORMERS = ("mask_rcnn_swint", "faster_rcnn_convnext")
FAMILIES = (
    "mask_rcnn_r50",
    "mask_rcnn_c4",
    "mask_rcnn_x101_agnostic",
    "cascade_mask_rcnn_gn",
    "mask_rcnn_dconv",
    "faster_rcnn_dconv_v2",
    "faster_rcnn_r18_avg_rgb",
    "retinanet",
    "panoptic_fpn",
    "mask_rcnn_vitdet",
    "cascade_mask_rcnn_vitdet",
    "sparse_rcnn",
)
SIZE_HW = (120, 160)
BY_NAME = {golden.name: golden for golden in TINY}


def image() -> Tensor:
    pixels = np.random.default_rng(5).integers(0, 256, (3, *SIZE_HW), dtype=np.uint8)
    return torch.from_numpy(pixels)


def features_of(model: Network) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    hook = model.backbone.register_forward_hook(lambda _m, _i, output: seen.update(output))
    model([image()], [SIZE_HW])
    hook.remove()
    return seen


@pytest.mark.parametrize("name", FAMILIES)
def test_features_equal_those_of_the_loaded_network(name: str) -> None:
    plain, optimized = BY_NAME[name].build(), optimize(BY_NAME[name].build())
    expected = features_of(plain)
    for level, feature in features_of(optimized).items():
        scale = float(expected[level].abs().max())
        assert scale > 0.1
        torch.testing.assert_close(feature, expected[level], rtol=0, atol=2e-6 * scale)


@pytest.mark.parametrize("name", FAMILIES)
def test_instances_equal_those_of_the_loaded_network(name: str) -> None:
    [expected] = BY_NAME[name].build()([image()], [SIZE_HW])
    [found] = optimize(BY_NAME[name].build())([image()], [SIZE_HW])
    assert len(expected.instances) > 0
    close = partial(torch.testing.assert_close, rtol=0)
    close(found.instances.boxes, expected.instances.boxes, atol=2e-3)
    close(found.instances.scores, expected.instances.scores, atol=1e-5)
    assert torch.equal(found.instances.classes, expected.instances.classes)
    if expected.instances.masks is not None:
        close(found.instances.masks, expected.instances.masks, atol=5e-4)


@pytest.mark.parametrize("kind", [Conv2d, DeformConv2d])
def test_norms_are_folded_into_weight_and_bias(kind: type[Conv2d] | type[DeformConv2d]) -> None:
    torch.manual_seed(0)
    deformable = kind is DeformConv2d
    convolution = (
        DeformConv2d(6, stride=1, dilation=1, groups=1, norm="BN")
        if deformable
        else Conv2d(6, 6, 3, norm="BN", relu=True)
    )
    norm = convolution.norm
    assert isinstance(norm, FrozenBatchNorm2d)
    convolution.weight.data.normal_()
    for values in (norm.weight, norm.running_var):
        values.uniform_(1e-4, 2.0)
    for values in (norm.bias, norm.running_mean):
        values.normal_()
    features = torch.randn(2, 6, 9, 11)
    sampling = (torch.randn(2, 18, 9, 11), torch.rand(2, 9, 9, 11)) if deformable else ()
    with torch.inference_mode():
        expected = convolution(features, *sampling)
        fold_norms(nn.Sequential(convolution))
        assert convolution.norm is None
        found = convolution(features, *sampling)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))


def test_frozen_batch_norms_are_folded_and_group_norms_are_not() -> None:
    model = optimize(BY_NAME["cascade_mask_rcnn_gn"].build())
    kinds = {type(module) for module in model.modules()}
    assert nn.GroupNorm in kinds
    assert FrozenBatchNorm2d not in {
        type(m)
        for golden in ("mask_rcnn_r50", "mask_rcnn_dconv")
        for m in optimize(BY_NAME[golden].build()).modules()
    }


def test_optimizing_twice_changes_nothing() -> None:
    model = optimize(BY_NAME["mask_rcnn_r50"].build())
    once = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, tensor in optimize(model).state_dict().items():
        assert torch.equal(tensor, once[name]), name


def test_layers_are_converted_and_positions_stay_float32() -> None:
    model = optimize(BY_NAME["faster_rcnn_dconv_v2"].build(), torch.bfloat16)
    assert model.backbone.bottom_up.stem.conv1.weight.dtype is torch.bfloat16  # type: ignore[union-attr]
    full = (BoxPredictor, OffsetConv2d, DeformConv2d)
    kept = [module for module in model.modules() if isinstance(module, full)]
    assert {type(module) for module in kept} == set(full)
    for module in kept:
        assert {values.dtype for values in module.parameters()} == {torch.float32}
    assert {buffer.dtype for buffer in model.buffers()} == {torch.float32}


@pytest.mark.parametrize(
    "name", [*FAMILIES, "keypoint_rcnn", "semantic_fpn", "rpn_fpn", *FCOS, *TRANSFORMERS]
)
def test_every_family_runs_in_bfloat16_with_output_in_float32(name: str) -> None:
    [found] = optimize(BY_NAME[name].build(), torch.bfloat16)([image()], [SIZE_HW])
    instances = found.instances
    for values in (instances.boxes, instances.scores, instances.masks, instances.keypoints):
        assert values is None or values.dtype is torch.float32
