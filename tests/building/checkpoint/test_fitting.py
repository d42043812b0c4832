"""Weights into a network: what fits, and how what does not is told."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from d2serve.errors import CheckpointError
from d2serve.model.layers import FrozenBatchNorm2d
from d2serve.model.weights import load_weights
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


def refusal(model: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    with pytest.raises(CheckpointError) as raised:
        load_weights(model, weights)
    return str(raised.value).splitlines()


def test_missing_unexpected_and_misshaped_names_come_in_one_error() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    weights = {
        "0.weight": torch.zeros(5, 3),
        "0.bias": torch.zeros(2),
        "1.weight": torch.zeros(2, 2),
        "extra.weight": torch.zeros(1),
    }
    assert refusal(model, weights) == [
        "the checkpoint is of another architecture than the config: it lacks 1.bias and has extra",
        "  missing: 1.bias (2,)",
        "  unexpected: extra.weight (1,)",
        "  shape of 0.weight: (5, 3), the config needs (2, 3)",
    ]


def test_no_more_than_twenty_names_are_listed() -> None:
    first, *names = refusal(nn.Sequential(*[nn.Linear(1, 1)] * 12), {})
    assert "architecture" in first
    assert len(names) == 21
    assert names[-1] == "  ... and 4 more"


def test_another_architecture_is_told_by_its_modules() -> None:
    rcnn = network(
        backbone=nn.Linear(1, 1),
        proposal_generator__rpn_head=nn.Linear(1, 1),
        roi_heads__box_head=nn.Linear(1, 1),
    )
    retinanet = network(backbone=nn.Linear(1, 1), head__cls_score=nn.Linear(1, 1))
    assert refusal(rcnn, weights_of(retinanet))[0] == (
        "the checkpoint is of another architecture than the config: "
        "it lacks proposal_generator, roi_heads and has head"
    )


def test_a_part_too_many_is_told() -> None:
    box_alone = network(roi_heads__box_head=nn.Linear(1, 1))
    with_masks = network(
        roi_heads__box_head=nn.Linear(1, 1),
        roi_heads__mask_head__conv=nn.Linear(1, 1),
        roi_heads__mask_head__deconv=nn.Linear(1, 1),
    )
    assert refusal(box_alone, weights_of(with_masks))[0] == (
        "the checkpoint does not fit the config: it has roi_heads.mask_head"
    )


def test_other_shapes_alone_are_told() -> None:
    weights = weights_of(network(backbone=nn.Linear(1, 5)))
    first, *names = refusal(network(backbone=nn.Linear(1, 7)), weights)
    assert first == "the checkpoint does not fit the config: weights of other shapes"
    assert names[0] == "  shape of backbone.weight: (5, 1), the config needs (7, 1)"


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
    ("make", "told"),
    [
        (box_predictor, "80 classes, the config 3 (MODEL.ROI_HEADS.NUM_CLASSES)"),
        (cascade, "80 classes, the config 3 (MODEL.ROI_HEADS.NUM_CLASSES)"),
        (retinanet, "80 classes, the config 3 (MODEL.RETINANET.NUM_CLASSES)"),
        (semantic, "80 stuff classes, the config 3 (MODEL.SEM_SEG_HEAD.NUM_CLASSES)"),
        (masks, "80 classes of masks, the config 3 (MODEL.ROI_HEADS.NUM_CLASSES)"),
    ],
)
def test_a_wrong_number_of_classes_is_told_in_words(
    make: Callable[[int], nn.Module], told: str
) -> None:
    assert refusal(make(3), weights_of(make(80)))[0] == f"the checkpoint has {told}"


def test_what_the_config_says_too_is_left() -> None:
    model = nn.Linear(3, 2)
    besides = {
        "pixel_mean": torch.zeros(3, 1, 1),
        "pixel_std": torch.ones(3, 1, 1),
        "proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(3, 4),
        "anchor_generator.cell_anchors.0": torch.zeros(9, 4),
        "backbone.stem.conv1.norm.num_batches_tracked": torch.tensor(7),
        "roi_heads.box_predictor.fed_loss_cls_weights": torch.ones(1203),
    }
    load_weights(model, {**tensors(), **besides})
    assert torch.equal(model.weight, torch.from_numpy(WEIGHT))


def test_how_many_batches_a_norm_saw_may_be_unknown() -> None:
    model = network(norm=nn.BatchNorm2d(2))
    weights = weights_of(network(norm=nn.BatchNorm2d(2, track_running_stats=False)))
    weights |= {"norm.running_mean": torch.ones(2), "norm.running_var": torch.ones(2)}
    load_weights(model, weights)
    assert torch.equal(model.state_dict()["norm.running_mean"], torch.ones(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precision_become_float32(dtype: torch.dtype) -> None:
    model = nn.Linear(3, 2)
    load_weights(model, {name: tensor.to(dtype) for name, tensor in tensors().items()})
    assert model.weight.dtype == torch.float32
    assert torch.equal(model.weight, torch.from_numpy(WEIGHT))


def test_a_name_may_lack_its_beginning() -> None:
    model = network(backbone__stem__conv1=nn.Linear(3, 2), roi_heads__conv1=nn.Linear(3, 2))
    weights = {**tensors("stem.conv1."), **tensors("roi_heads.conv1.", plus=1)}
    load_weights(model, weights)
    state = model.state_dict()
    assert torch.equal(state["backbone.stem.conv1.weight"], weights["stem.conv1.weight"])
    assert torch.equal(state["roi_heads.conv1.weight"], weights["roi_heads.conv1.weight"])


def test_the_longest_ending_is_taken() -> None:
    model = network(backbone__stem__conv1=nn.Linear(3, 2), head__conv1=nn.Linear(3, 2))
    weights = {**tensors("stem.conv1."), **tensors("conv1.", plus=1)}
    load_weights(model, weights)
    state = model.state_dict()
    assert torch.equal(state["backbone.stem.conv1.weight"], weights["stem.conv1.weight"])
    assert torch.equal(state["head.conv1.weight"], weights["conv1.weight"])


def test_a_part_of_a_word_is_no_ending() -> None:
    names = refusal(network(roi_heads__my_conv=nn.Linear(3, 2)), dict(tensors("conv.")))
    assert "  missing: roi_heads.my_conv.weight (2, 3)" in names
    assert "  unexpected: conv.weight (2, 3)" in names


def test_a_name_with_two_places_has_none() -> None:
    model = network(box_predictor__0__cls=nn.Linear(3, 2), box_predictor__1__cls=nn.Linear(3, 2))
    names = refusal(model, dict(tensors("cls.")))
    assert "  missing: box_predictor.0.cls.weight (2, 3)" in names
    assert "  unexpected: cls.weight (2, 3)" in names


def test_a_frozen_norm_without_statistics_is_scale_and_shift() -> None:
    model = network(stem__norm=FrozenBatchNorm2d(2))
    load_weights(model, {"norm.weight": torch.full((2,), 3.0), "norm.bias": torch.ones(2)})
    state = model.state_dict()
    assert state["stem.norm.weight"].tolist() == [3, 3]
    assert state["stem.norm.running_mean"].tolist() == [0, 0]
    assert state["stem.norm.running_var"].tolist() == [1, 1]
