"""The heads of lazy configs that look at regions: boxes and masks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from handler.rcnn.config.backbone import AnyBackboneConfig
from handler.rcnn.config.kinds import flag, fraction, integer, one_of, only
from handler.rcnn.config.lazy.kinds import NORM, equal_numbers
from handler.rcnn.config.lazy.node import LazyNode
from handler.rcnn.config.lazy.proposals import read_box_weights, read_features, stride_of
from handler.rcnn.config.roi_heads import (
    CASCADE_HEADS,
    STANDARD_HEADS,
    BoxHeadConfig,
    BoxPredictorConfig,
    MaskHeadConfig,
    PoolerConfig,
    ROIHeadsConfig,
    SelectionConfig,
)

OF_TRAINING = (
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
    node.ignore(*OF_TRAINING)
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
