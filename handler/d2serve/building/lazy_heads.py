"""Proposals and ROI heads of lazy configs -> typed configuration."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from d2serve.building.key_types import (
    Key,
    flag,
    fraction,
    integer,
    is_number,
    names,
    number_lists,
    numbers,
    one_of,
    only,
)
from d2serve.building.lazy_node import NORM, LazyNode, equal_numbers, train_and_test
from d2serve.model.config import (
    CASCADE_HEADS,
    STANDARD_HEADS,
    AnchorConfig,
    AnyBackboneConfig,
    BoxHeadConfig,
    BoxPredictorConfig,
    MaskHeadConfig,
    PoolerConfig,
    ROIHeadsConfig,
    RPNConfig,
    SelectionConfig,
)

OF_TRAINING = (
    "anchor_matcher",
    "batch_size_per_image",
    "positive_fraction",
    "anchor_boundary_thresh",
    "loss_weight",
    "box_reg_loss_type",
    "smooth_l1_beta",
)


def read_rpn(node: LazyNode, backbone: AnyBackboneConfig) -> RPNConfig:
    """Reads `model.proposal_generator`."""
    node.target("RPN")
    node.ignore(*OF_TRAINING)
    head = node.child("head")
    head.target("StandardRPNHead")
    head.ignore("in_channels", "num_anchors")  # follow from the backbone and the anchors
    head.value("box_dim", only(4))
    features = read_features("in_features", node, backbone)
    return RPNConfig(
        in_features=features,
        conv_dims=tuple(head.value("conv_dims", CONV_DIMS)),
        box_weights=read_box_weights(node),
        pre_nms_topk=node.needed("pre_nms_topk", train_and_test(1000))[1],
        post_nms_topk=node.needed("post_nms_topk", train_and_test(1000))[1],
        nms_threshold=node.value("nms_thresh", fraction(0.7)),
        min_box_size=node.value("min_box_size", NOT_NEGATIVE),
        anchors=_read_anchors(node.child("anchor_generator"), features),
    )


NOT_NEGATIVE = Key(0.0, lambda value: is_number(value) and value >= 0, "a number of at least 0")


def _are_conv_dims(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(item, int) and (item == -1 or item > 0) for item in value)
    )


CONV_DIMS = Key([-1], _are_conv_dims, "a list of whole numbers above 0, or -1")


def read_features(name: str, node: LazyNode, backbone: AnyBackboneConfig) -> tuple[str, ...]:
    """Which of the backbone's feature maps a head takes: consecutive ones."""
    offered = backbone.features
    features = tuple(node.needed(name, names([*offered])))
    first = offered.index(features[0]) if features[0] in offered else 0
    if features == offered[first : first + len(features)]:
        return features
    node.conflict(name, f"must be consecutive levels of {list(offered)!r}")
    return offered


def read_box_weights(node: LazyNode) -> tuple[float, ...]:
    """Of `box2box_transform`."""
    transform = node.child("box2box_transform")
    transform.target("Box2BoxTransform")
    return tuple(transform.needed("weights", numbers([1.0] * 4, count=4, positive=True)))


def stride_of(feature: str) -> int:
    """p2 is a quarter of the picture."""
    return int(2 ** int(feature.removeprefix("p")))


def _read_anchors(node: LazyNode, features: tuple[str, ...]) -> AnchorConfig:
    node.target("DefaultAnchorGenerator")
    node.agree("strides", [stride_of(name) for name in features])
    return AnchorConfig(
        sizes=_per_level("sizes", node, len(features)),
        ratios=_per_level("aspect_ratios", node, len(features)),
        offset=node.value("offset", fraction(0.5)),
    )


def _per_level(name: str, node: LazyNode, levels: int) -> tuple[tuple[float, ...], ...]:
    """One list for each level, or one for all."""
    key = NUMBERS if NUMBERS.check(node.given.get(name)) else NUMBER_LISTS
    given = node.needed(name, key)
    rows = tuple(tuple(row) for row in given) if key is NUMBER_LISTS else (tuple(given),)
    if len(rows) not in (1, levels) or len({len(row) for row in rows}) > 1:
        node.conflict(name, "needs one list, or one of equal length per level")
    return rows * levels if len(rows) == 1 else rows


NUMBERS = numbers([1.0], positive=True)
NUMBER_LISTS = number_lists([[1.0]])
HEAD_TRAINING_KEYS = (
    "batch_size_per_image",
    "positive_fraction",
    "proposal_matcher",
    "proposal_matchers",
    "proposal_append_gt",
    "train_on_pred_boxes",
)
PREDICTOR_OF_TRAINING = (
    "smooth_l1_beta",
    "box_reg_loss_type",
    "loss_weight",
    "use_fed_loss",
    "get_fed_loss_cls_weights",
    "fed_loss_num_classes",
)


@dataclass(frozen=True)
class Predictor:
    """What `FastRCNNOutputLayers` is told."""

    config: BoxPredictorConfig
    selection: SelectionConfig


def read_roi_heads(node: LazyNode, backbone: AnyBackboneConfig) -> ROIHeadsConfig:
    """Reads `model.roi_heads`."""
    name = node.target(STANDARD_HEADS, CASCADE_HEADS)
    node.ignore(*HEAD_TRAINING_KEYS)
    features = read_features("box_in_features", node, backbone)
    num_classes = node.needed("num_classes", integer(80, 1))
    cascaded = name == CASCADE_HEADS
    heads = _box_heads(node, cascaded)
    predictors = _predictors(node, cascaded, num_classes)
    # A cascade's last stage decides.
    predictor, selection = predictors[-1].config, predictors[-1].selection
    return ROIHeadsConfig(
        name=name,
        in_features=features,
        pooler=_read_pooler(node.child("box_pooler"), features),
        box=heads[-1],
        predictor=predictor,
        cascade_weights=tuple(each.config.box_weights for each in predictors) if cascaded else (),
        selection=selection,
        mask=_read_mask_head(node, features, num_classes),
        keypoint=None,
    )


def _box_heads(node: LazyNode, cascaded: bool) -> list[BoxHeadConfig]:
    nodes = node.list_of("box_heads") if cascaded else [node.child("box_head")]
    heads = [_read_box_head(each) for each in nodes]
    _require_alike(node, "box_heads", heads)
    return heads


def _predictors(node: LazyNode, cascaded: bool, num_classes: int) -> list[Predictor]:
    nodes = node.list_of("box_predictors") if cascaded else [node.child("box_predictor")]
    predictors = [_read_predictor(each, num_classes) for each in nodes]
    if cascaded:
        _require_alike(
            node,
            "box_predictors",
            [replace(each.config, box_weights=()) for each in predictors],
        )
        if len(node.given.get("box_heads", nodes)) != len(nodes):
            node.conflict("box_predictors", "needs one for each of box_heads")
        if not predictors[-1].config.class_agnostic:
            nodes[-1].conflict("cls_agnostic_bbox_reg", f"must be True for {CASCADE_HEADS}")
    return predictors


def _require_alike(node: LazyNode, name: str, configs: Sequence[Any]) -> None:
    if any(config != configs[0] for config in configs):
        node.conflict(name, "must be alike, box2box_transform apart")


def _read_box_head(node: LazyNode) -> BoxHeadConfig:
    node.target("FastRCNNConvFCHead")
    node.ignore("input_shape")  # follows from the backbone and the pooler
    conv_dims = node.needed("conv_dims", equal_numbers([], 0))
    fc_dims = node.needed("fc_dims", equal_numbers([], 0))
    if not conv_dims and not fc_dims:
        node.conflict("fc_dims", "and conv_dims too, but the box head needs a layer")
    return BoxHeadConfig(
        num_conv=len(conv_dims),
        conv_dim=conv_dims[0] if conv_dims else 0,
        num_fc=len(fc_dims),
        fc_dim=fc_dims[0] if fc_dims else 0,
        norm=node.value("conv_norm", NORM),
    )


def _read_predictor(node: LazyNode, num_classes: int) -> Predictor:
    node.target("FastRCNNOutputLayers")
    node.ignore("input_shape", *PREDICTOR_OF_TRAINING)
    node.agree("num_classes", num_classes)
    config = BoxPredictorConfig(
        num_classes=num_classes,
        class_agnostic=node.value("cls_agnostic_bbox_reg", flag(False)),
        sigmoid_scores=node.value("use_sigmoid_ce", flag(False)),
        box_weights=read_box_weights(node),
    )
    selection = SelectionConfig(
        score_threshold=node.value("test_score_thresh", fraction(0.0)),
        nms_threshold=node.value("test_nms_thresh", fraction(0.5)),
        max_detections=node.value("test_topk_per_image", integer(100, 1)),
    )
    return Predictor(config, selection)


def _read_mask_head(
    node: LazyNode, features: tuple[str, ...], num_classes: int
) -> MaskHeadConfig | None:
    if not node.has("mask_in_features"):
        node.ignore("mask_pooler", "mask_head")
        return None
    node.agree("mask_in_features", [*features])
    head = node.child("mask_head")
    head.target("MaskRCNNConvUpsampleHead")
    head.ignore("input_shape", "loss_weight", "vis_period")
    # The last one is the upsampling's.
    conv_dims = head.needed("conv_dims", equal_numbers([256], 1))
    masks = head.needed("num_classes", integer(1, 1))
    if masks not in (num_classes, 1):
        head.conflict("num_classes", f"must be {num_classes} or 1")
    return MaskHeadConfig(
        pooler=_read_pooler(node.child("mask_pooler"), features),
        num_conv=len(conv_dims) - 1,
        conv_dim=conv_dims[0],
        norm=head.value("conv_norm", NORM),
        class_agnostic=masks != num_classes,
    )


def _read_pooler(node: LazyNode, features: tuple[str, ...]) -> PoolerConfig:
    node.target("ROIPooler")
    node.agree("scales", [1 / stride_of(name) for name in features])
    node.value("canonical_box_size", only(224))
    node.value("canonical_level", only(4))
    pooler_type = node.needed("pooler_type", one_of("ROIAlignV2", "ROIAlign"))
    return PoolerConfig(
        resolution=node.needed("output_size", integer(7, 1)),
        sampling_ratio=node.needed("sampling_ratio", integer(0, 0)),
        aligned=pooler_type == "ROIAlignV2",
    )
