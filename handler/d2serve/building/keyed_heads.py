"""Heads on regions of a keyed config as typed configuration."""

from d2serve.building.config_values import ConfigValues
from d2serve.building.densepose_keys import DENSEPOSE_HEADS
from d2serve.building.densepose_keys import HEAD as DENSEPOSE
from d2serve.building.fcos_keys import ATTENTION_MASK_HEAD, CENTER_HEADS
from d2serve.building.keyed_dense import read_levels
from d2serve.building.keyed_densepose import read_densepose
from d2serve.building.keyed_few_shot import read_cosine_scale, read_decoupled
from d2serve.model.backbone_config import BASIC_BLOCK_DEPTHS, BackboneConfig, ResNetConfig
from d2serve.model.heads_config import (
    CASCADE_HEADS,
    NO_LAYERS,
    RES5_HEADS,
    STANDARD_HEADS,
    BoxHeadConfig,
    BoxPredictorConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    PoolerConfig,
    ROIHeadsConfig,
    SelectionConfig,
)

HEADS = "MODEL.ROI_HEADS"
BOX = "MODEL.ROI_BOX_HEAD"
CASCADE = "MODEL.ROI_BOX_CASCADE_HEAD"
MASK = "MODEL.ROI_MASK_HEAD"
KEYPOINT = "MODEL.ROI_KEYPOINT_HEAD"


def read_roi_heads(
    values: ConfigValues, backbone: BackboneConfig, max_proposals: int
) -> ROIHeadsConfig:
    """Read MODEL.ROI_HEADS and the heads on top."""
    name = values[f"{HEADS}.NAME"]
    features = read_levels(f"{HEADS}.IN_FEATURES", values, backbone)
    num_classes, limit = values[f"{HEADS}.NUM_CLASSES"], values["TEST.DETECTIONS_PER_IMAGE"]
    heads = ROIHeadsConfig(
        name=STANDARD_HEADS if name == DENSEPOSE_HEADS else name,
        in_features=features,
        pooler=read_pooler(values, BOX),
        box=_read_box_head(values) if name != RES5_HEADS else NO_LAYERS,
        predictor=BoxPredictorConfig(
            num_classes=num_classes,
            class_agnostic=values[f"{BOX}.CLS_AGNOSTIC_BBOX_REG"],
            sigmoid_scores=values[f"{BOX}.USE_SIGMOID_CE"],
            box_weights=tuple(values[f"{BOX}.BBOX_REG_WEIGHTS"]),
            cosine_scale=read_cosine_scale(values, name),
        ),
        cascade_weights=_read_cascade_weights(values) if name == CASCADE_HEADS else (),
        selection=SelectionConfig(
            score_threshold=values[f"{HEADS}.SCORE_THRESH_TEST"],
            nms_threshold=values[f"{HEADS}.NMS_THRESH_TEST"],
            # As many as there are proposals and classes if it is negative.
            max_detections=limit if limit >= 0 else max_proposals * num_classes,
        ),
        mask=read_mask_head(values, name) if values["MODEL.MASK_ON"] else None,
        keypoint=_read_keypoint_head(values) if values["MODEL.KEYPOINT_ON"] else None,
        densepose=read_densepose(values, backbone, features, read_pooler(values, DENSEPOSE))
        if name == DENSEPOSE_HEADS and values["MODEL.DENSEPOSE_ON"]
        else None,
        decoupled=read_decoupled(values, HEADS),
    )
    if name == RES5_HEADS:
        _check_res5(values, backbone)
    return heads


def _read_box_head(values: ConfigValues) -> BoxHeadConfig:
    values[f"{BOX}.NAME"]
    num_conv, num_fc = max(0, values[f"{BOX}.NUM_CONV"]), max(0, values[f"{BOX}.NUM_FC"])
    head = BoxHeadConfig(
        num_conv=num_conv,
        conv_dim=values[f"{BOX}.CONV_DIM"] if num_conv else 0,
        num_fc=num_fc,
        fc_dim=values[f"{BOX}.FC_DIM"] if num_fc else 0,
        norm=(values[f"{BOX}.NORM"] or "") if num_conv else "",
    )
    if head.num_conv + head.num_fc == 0:
        values.add_conflict(f"{BOX}.NUM_FC", f"must be at least 1 if {BOX}.NUM_CONV is not")
    return head


def _read_cascade_weights(values: ConfigValues) -> tuple[tuple[float, ...], ...]:
    weights = tuple(tuple(row) for row in values[f"{CASCADE}.BBOX_REG_WEIGHTS"])
    if len(weights) != len(values[f"{CASCADE}.IOUS"]):
        values.add_conflict(
            f"{CASCADE}.BBOX_REG_WEIGHTS", f"must have a list for each of {CASCADE}.IOUS"
        )
    if not values[f"{BOX}.CLS_AGNOSTIC_BBOX_REG"]:
        values.add_conflict(f"{BOX}.CLS_AGNOSTIC_BBOX_REG", f"must be True for {CASCADE_HEADS}")
    return weights


def read_mask_head(values: ConfigValues, heads: str) -> MaskHeadConfig:
    """Read MODEL.ROI_MASK_HEAD for ROI heads of this name."""
    has_attention = values[f"{MASK}.NAME"] == ATTENTION_MASK_HEAD
    if has_attention and heads != CENTER_HEADS:
        values.add_conflict(f"{MASK}.NAME", f"requires {HEADS}.NAME {CENTER_HEADS}")
    num_conv = values[f"{MASK}.NUM_CONV"]
    return MaskHeadConfig(
        # Res5 heads have one pooler for boxes and masks.
        pooler=read_pooler(values, BOX if heads == RES5_HEADS else MASK),
        num_conv=num_conv,
        conv_dim=values[f"{MASK}.CONV_DIM"],
        norm=(values[f"{MASK}.NORM"] or "") if num_conv else "",
        class_agnostic=values[f"{MASK}.CLS_AGNOSTIC_MASK"],
        spatial_attention=has_attention,
    )


def _read_keypoint_head(values: ConfigValues) -> KeypointHeadConfig:
    values[f"{KEYPOINT}.NAME"]
    return KeypointHeadConfig(
        pooler=read_pooler(values, KEYPOINT),
        conv_dims=tuple(values[f"{KEYPOINT}.CONV_DIMS"]),
        num_keypoints=values[f"{KEYPOINT}.NUM_KEYPOINTS"],
    )


def read_pooler(values: ConfigValues, head: str) -> PoolerConfig:
    """Read the pooler of a head, such as `MODEL.ROI_BOX_HEAD`."""
    kind = values[f"{head}.POOLER_TYPE"]
    return PoolerConfig(
        resolution=values[f"{head}.POOLER_RESOLUTION"],
        sampling_ratio=values[f"{head}.POOLER_SAMPLING_RATIO"],
        aligned=kind == "ROIAlignV2",
        takes_maximum=kind == "ROIPool",
    )


def _check_res5(values: ConfigValues, backbone: BackboneConfig) -> None:
    if values["MODEL.KEYPOINT_ON"]:
        values.add_conflict("MODEL.KEYPOINT_ON", f"must be False for {RES5_HEADS}")
    if backbone.fpn is not None or values[f"{HEADS}.IN_FEATURES"] != ["res4"]:
        values.add_conflict(
            f"{HEADS}.IN_FEATURES", f"must be ['res4'] of a ResNet without FPN for {RES5_HEADS}"
        )
    resnet = backbone.bottom_up
    if not isinstance(resnet, ResNetConfig):
        values.add_conflict("MODEL.BACKBONE.NAME", f"must be a ResNet for {RES5_HEADS}")
        return
    if resnet.depth in BASIC_BLOCK_DEPTHS:
        values.add_conflict("MODEL.RESNETS.DEPTH", f"must be 50 or more for {RES5_HEADS}")
    if resnet.deform[-1]:
        values.add_conflict(
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE", f"must be False in the last stage for {RES5_HEADS}"
        )
