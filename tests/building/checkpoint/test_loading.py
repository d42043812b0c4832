"""Load checkpoints into networks, and describe mismatches."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from d2serve.building.checkpoint_loading import load_from_checkpoint
from d2serve.errors import CheckpointError
from d2serve.model.layers import ChannelAffine, FrozenBatchNorm2d
from tests.building.checkpoint.saving import WEIGHT, tensors


def network(**modules: nn.Module) -> nn.Module:
    """Modules under paths whose dots are written as __."""
    whole = nn.Module()
    for path, module in modules.items():
        *parents, name = path.split("__")
        place = whole
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, nn.Module())
            place = place.get_submodule(parent)
        place.add_module(name, module)
    return whole


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}


def error_lines(model: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    with pytest.raises(CheckpointError) as raised:
        load_from_checkpoint(model, weights)
    return str(raised.value).splitlines()


def test_missing_unexpected_and_misshaped_names_come_in_one_error() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    weights = {
        "0.weight": torch.zeros(5, 3),
        "0.bias": torch.zeros(2),
        "1.weight": torch.zeros(2, 2),
        "extra.weight": torch.zeros(1),
    }
    assert error_lines(model, weights) == [
        "the checkpoint has another architecture than the config: it lacks 1.bias and has extra",
        "  missing: 1.bias (2,)",
        "  unexpected: extra.weight (1,)",
        "  shape of 0.weight: (5, 3), the config requires (2, 3)",
    ]


def test_no_more_than_twenty_names_are_listed() -> None:
    first, *names = error_lines(nn.Sequential(*[nn.Linear(1, 1)] * 12), {})
    assert "architecture" in first
    assert len(names) == 21
    assert names[-1] == "  ... and 4 more"


def test_another_architecture_is_described_by_its_modules() -> None:
    rcnn = network(
        backbone=nn.Linear(1, 1),
        proposal_generator__rpn_head=nn.Linear(1, 1),
        roi_heads__box_head=nn.Linear(1, 1),
    )
    retinanet = network(backbone=nn.Linear(1, 1), head__cls_score=nn.Linear(1, 1))
    assert error_lines(rcnn, weights_of(retinanet))[0] == (
        "the checkpoint has another architecture than the config: "
        "it lacks proposal_generator, roi_heads and has head"
    )


def test_an_additional_module_is_named() -> None:
    box_alone = network(roi_heads__box_head=nn.Linear(1, 1))
    with_masks = network(
        roi_heads__box_head=nn.Linear(1, 1),
        roi_heads__mask_head__conv=nn.Linear(1, 1),
        roi_heads__mask_head__deconv=nn.Linear(1, 1),
    )
    assert error_lines(box_alone, weights_of(with_masks))[0] == (
        "the checkpoint does not match the config: it has roi_heads.mask_head"
    )


def test_a_fork_is_named_by_its_weights() -> None:
    standard = network(roi_heads__mask_head__predictor=nn.Linear(1, 1))
    transfiner = network(
        roi_heads__mask_head__predictor=nn.Linear(1, 1),
        roi_heads__mask_head__predictor_uncertain=nn.Linear(1, 1),
    )
    assert error_lines(standard, weights_of(transfiner))[0] == (
        "the checkpoint is of Mask Transfiner (github.com/SysCV/transfiner), which is part neither "
        "of d2serve nor of the detectron2 package: it has roi_heads.mask_head.predictor_uncertain"
    )


def test_other_shapes_are_listed() -> None:
    weights = weights_of(network(backbone=nn.Linear(1, 5)))
    first, *names = error_lines(network(backbone=nn.Linear(1, 7)), weights)
    assert first == "the checkpoint does not match the config: weights have other shapes"
    assert names[0] == "  shape of backbone.weight: (5, 1), the config requires (7, 1)"


def box_predictor(classes: int) -> nn.Module:
    return network(
        backbone=nn.Linear(1, 1),
        roi_heads__box_predictor__cls_score=nn.Linear(4, classes + 1),
        roi_heads__box_predictor__bbox_pred=nn.Linear(4, 4 * classes),
    )


def cascade(classes: int) -> nn.Module:
    return network(
        roi_heads__box_predictor__0__cls_score=nn.Linear(4, classes + 1),
        roi_heads__box_predictor__0__bbox_pred=nn.Linear(4, 4),
    )


def retinanet(classes: int) -> nn.Module:
    return network(
        head__cls_score=nn.Conv2d(4, 9 * classes, 3), head__bbox_pred=nn.Conv2d(4, 9 * 4, 3)
    )


def semantic(classes: int) -> nn.Module:
    return network(sem_seg_head__predictor=nn.Conv2d(4, classes, 1))


def masks(classes: int) -> nn.Module:
    return network(roi_heads__mask_head__predictor=nn.Conv2d(4, classes, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (box_predictor, "80 classes, the config 3 (MODEL.ROI_HEADS.NUM_CLASSES)"),
        (cascade, "80 classes, the config 3 (MODEL.ROI_HEADS.NUM_CLASSES)"),
        (retinanet, "80 classes, the config 3 (MODEL.RETINANET.NUM_CLASSES)"),
        (semantic, "80 stuff classes, the config 3 (MODEL.SEM_SEG_HEAD.NUM_CLASSES)"),
        (masks, "80 mask classes, the config 3 (MODEL.ROI_HEADS.NUM_CLASSES)"),
    ],
)
def test_a_wrong_number_of_classes_is_described(
    make: Callable[[int], nn.Module], message: str
) -> None:
    assert error_lines(make(3), weights_of(make(80)))[0] == f"the checkpoint has {message}"


def test_derived_entries_are_ignored() -> None:
    model = nn.Linear(3, 2)
    besides = {
        "pixel_mean": torch.zeros(3, 1, 1),
        "pixel_std": torch.ones(3, 1, 1),
        "proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(3, 4),
        "anchor_generator.cell_anchors.0": torch.zeros(9, 4),
        "backbone.stem.conv1.norm.num_batches_tracked": torch.tensor(7),
        "roi_heads.box_predictor.fed_loss_cls_weights": torch.ones(1203),
    }
    load_from_checkpoint(model, {**tensors(), **besides})
    assert torch.equal(model.weight, torch.from_numpy(WEIGHT))


def test_the_number_of_batches_of_a_norm_may_be_missing() -> None:
    model = network(norm=nn.BatchNorm2d(2))
    weights = weights_of(network(norm=nn.BatchNorm2d(2, track_running_stats=False)))
    weights |= {"norm.running_mean": torch.ones(2), "norm.running_var": torch.ones(2)}
    load_from_checkpoint(model, weights)
    assert torch.equal(model.state_dict()["norm.running_mean"], torch.ones(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precision_become_float32(dtype: torch.dtype) -> None:
    model = nn.Linear(3, 2)
    load_from_checkpoint(model, {name: tensor.to(dtype) for name, tensor in tensors().items()})
    assert model.weight.dtype == torch.float32
    assert torch.equal(model.weight, torch.from_numpy(WEIGHT))


def test_names_without_their_first_modules_are_matched() -> None:
    model = network(backbone__stem__conv1=nn.Linear(3, 2), roi_heads__conv1=nn.Linear(3, 2))
    weights = {**tensors("stem.conv1."), **tensors("roi_heads.conv1.", plus=1)}
    load_from_checkpoint(model, weights)
    state = model.state_dict()
    assert torch.equal(state["backbone.stem.conv1.weight"], weights["stem.conv1.weight"])
    assert torch.equal(state["roi_heads.conv1.weight"], weights["roi_heads.conv1.weight"])


def test_the_longest_ending_is_matched() -> None:
    model = network(backbone__stem__conv1=nn.Linear(3, 2), head__conv1=nn.Linear(3, 2))
    weights = {**tensors("stem.conv1."), **tensors("conv1.", plus=1)}
    load_from_checkpoint(model, weights)
    state = model.state_dict()
    assert torch.equal(state["backbone.stem.conv1.weight"], weights["stem.conv1.weight"])
    assert torch.equal(state["head.conv1.weight"], weights["conv1.weight"])


def test_only_whole_modules_are_matched() -> None:
    names = error_lines(network(roi_heads__my_conv=nn.Linear(3, 2)), dict(tensors("conv.")))
    assert "  missing: roi_heads.my_conv.weight (2, 3)" in names
    assert "  unexpected: conv.weight (2, 3)" in names


def test_ambiguous_names_are_not_matched() -> None:
    model = network(box_predictor__0__cls=nn.Linear(3, 2), box_predictor__1__cls=nn.Linear(3, 2))
    names = error_lines(model, dict(tensors("cls.")))
    assert "  missing: box_predictor.0.cls.weight (2, 3)" in names
    assert "  unexpected: cls.weight (2, 3)" in names


def test_a_frozen_norm_without_statistics_gets_identity_ones() -> None:
    model = network(stem__norm=FrozenBatchNorm2d(2))
    load_from_checkpoint(model, {"norm.weight": torch.full((2,), 3.0), "norm.bias": torch.ones(2)})
    state = model.state_dict()
    assert state["stem.norm.weight"].tolist() == [3, 3]
    assert state["stem.norm.running_mean"].tolist() == [0, 0]
    assert state["stem.norm.running_var"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "name",
    [
        "D_img.conv1.weight",
        "img_align.model.0.bias",
        "roi_heads.encoder.head.0.weight",
        "roi_heads.queue_ptr",
        "roi_heads.box_predictor.bbox_pred_std.bias",
        "affine_rpn.weight",
    ],
)
def test_modules_that_only_training_uses_are_left_out(name: str) -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    weights = weights_of(model)
    load_from_checkpoint(model, {**weights, name: torch.zeros(1)})
    assert torch.equal(model.state_dict()["0.weight"], weights["0.weight"])
    assert (
        "unexpected: other.weight (1,)"
        in error_lines(model, {**weights, name: torch.zeros(1), "other.weight": torch.zeros(1)})[-1]
    )


def test_an_affine_layer_of_the_network_is_required() -> None:
    model = network(affine_rpn=ChannelAffine(4))
    weights = weights_of(model)
    load_from_checkpoint(model, weights)
    assert torch.equal(model.state_dict()["affine_rpn.weight"], weights["affine_rpn.weight"])
    assert "lacks affine_rpn" in error_lines(model, {})[0]
