"""ROI heads of a lazy config as typed configuration."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from d2serve.building.key_types import flag, integer, number, one_of, only, overlap
from d2serve.building.lazy_node import NORM, LazyNode, equal_integers
from d2serve.building.lazy_rpn import read_box_weights, read_features, stride_of
from d2serve.model.backbone_config import AnyBackboneConfig
from d2serve.model.heads_config import (
    CASCADE_HEADS,
    STANDARD_HEADS,
    BoxHeadConfig,
    BoxPredictorConfig,
    MaskHeadConfig,
    PoolerConfig,
    ROIHeadsConfig,
    SelectionConfig,
)

TRAINING_KEYS_OF_HEADS = (
    "batch_size_per_image",
    "positive_fraction",
    "proposal_matcher",
    "proposal_matchers",
    "proposal_append_gt",
    "train_on_pred_boxes",
)
TRAINING_KEYS_OF_PREDICTOR = (
    "smooth_l1_beta",
    "box_reg_loss_type",
    "loss_weight",
    "use_fed_loss",
    "get_fed_loss_cls_weights",
    "fed_loss_num_classes",
)


@dataclass(frozen=True)
class Predictor:
    """Arguments of `FastRCNNOutputLayers`."""

    config: BoxPredictorConfig
    selection: SelectionConfig


def read_roi_heads(
    node: LazyNode, backbone: AnyBackboneConfig, max_proposals: int
) -> ROIHeadsConfig:
    """Read `model.roi_heads`."""
    name = node.target(STANDARD_HEADS, CASCADE_HEADS)
    node.ignore(*TRAINING_KEYS_OF_HEADS)
    features = read_features("box_in_features", node, backbone)
    num_classes = node.required("num_classes", integer(80, 1))
    cascaded = name == CASCADE_HEADS
    heads = _box_heads(node, cascaded)
    predictors = _predictors(node, cascaded, num_classes)
    # The detections come from the last stage of a cascade.
    predictor, selection = predictors[-1].config, predictors[-1].selection
    if selection.max_detections < 0:
        selection = replace(selection, max_detections=max_proposals * num_classes)
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
    nodes = node.child_list("box_heads") if cascaded else [node.child("box_head")]
    heads = [_read_box_head(each) for each in nodes]
    _check_equal_stages(node, "box_heads", heads)
    return heads


def _predictors(node: LazyNode, cascaded: bool, num_classes: int) -> list[Predictor]:
    nodes = node.child_list("box_predictors") if cascaded else [node.child("box_predictor")]
    predictors = [_read_predictor(each, num_classes) for each in nodes]
    if cascaded:
        _check_equal_stages(
            node,
            "box_predictors",
            [replace(each.config, box_weights=()) for each in predictors],
        )
        heads = node.given.get("box_heads", nodes)
        if isinstance(heads, list) and len(heads) != len(nodes):
            node.add_conflict("box_predictors", "must have one entry per entry of box_heads")
        if not predictors[-1].config.class_agnostic:
            nodes[-1].add_conflict("cls_agnostic_bbox_reg", f"must be True for {CASCADE_HEADS}")
    return predictors


def _check_equal_stages(node: LazyNode, name: str, configs: Sequence[Any]) -> None:
    if any(config != configs[0] for config in configs):
        node.add_conflict(name, "must be equal apart from box2box_transform")


def _read_box_head(node: LazyNode) -> BoxHeadConfig:
    node.target("FastRCNNConvFCHead")
    node.ignore("input_shape")  # determined by the backbone and the pooler
    conv_dims = node.required("conv_dims", equal_integers([], 0))
    fc_dims = node.required("fc_dims", equal_integers([], 0))
    if not conv_dims and not fc_dims:
        node.add_conflict("fc_dims", "must have a layer if conv_dims has none")
    return BoxHeadConfig(
        num_conv=len(conv_dims),
        conv_dim=conv_dims[0] if conv_dims else 0,
        num_fc=len(fc_dims),
        fc_dim=fc_dims[0] if fc_dims else 0,
        norm=node.value("conv_norm", NORM) or "",
    )


def _read_predictor(node: LazyNode, num_classes: int) -> Predictor:
    node.target("FastRCNNOutputLayers")
    node.ignore("input_shape", *TRAINING_KEYS_OF_PREDICTOR)
    node.check_equal("num_classes", num_classes)
    config = BoxPredictorConfig(
        num_classes=num_classes,
        class_agnostic=node.value("cls_agnostic_bbox_reg", flag(False)),
        sigmoid_scores=node.value("use_sigmoid_ce", flag(False)),
        box_weights=read_box_weights(node),
    )
    selection = SelectionConfig(
        score_threshold=node.value("test_score_thresh", number(0.0)),
        nms_threshold=node.value("test_nms_thresh", overlap(0.5)),
        max_detections=node.value("test_topk_per_image", integer(100)),
    )
    return Predictor(config, selection)


def _read_mask_head(
    node: LazyNode, features: tuple[str, ...], num_classes: int
) -> MaskHeadConfig | None:
    if not node.has("mask_in_features"):
        node.ignore("mask_pooler", "mask_head")
        return None
    node.check_equal("mask_in_features", [*features])
    head = node.child("mask_head")
    head.target("MaskRCNNConvUpsampleHead")
    head.ignore("input_shape", "loss_weight", "vis_period")
    # The last entry is the upsampling layer.
    conv_dims = head.required("conv_dims", equal_integers([256], 1))
    masks = head.required("num_classes", integer(1, 1))
    if masks not in (num_classes, 1):
        head.add_conflict("num_classes", f"must be {num_classes} or 1")
    return MaskHeadConfig(
        pooler=_read_pooler(node.child("mask_pooler"), features),
        num_conv=len(conv_dims) - 1,
        conv_dim=conv_dims[0],
        norm=head.value("conv_norm", NORM) or "",
        class_agnostic=masks != num_classes,
    )


def _read_pooler(node: LazyNode, features: tuple[str, ...]) -> PoolerConfig:
    node.target("ROIPooler")
    node.check_equal("scales", [1 / stride_of(name) for name in features])
    node.value("canonical_box_size", only(224))
    node.value("canonical_level", only(4))
    pooler_type = node.required("pooler_type", one_of("ROIAlignV2", "ROIAlign", "ROIPool"))
    return PoolerConfig(
        resolution=node.required("output_size", integer(7, 1)),
        sampling_ratio=node.required("sampling_ratio", integer(0, 0)),
        aligned=pooler_type == "ROIAlignV2",
        takes_maximum=pooler_type == "ROIPool",
    )
