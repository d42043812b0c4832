"""Proposals and heads of a keyed config as typed configuration."""

from d2serve.building.config_values import ConfigValues
from d2serve.model.backbone_config import BASIC_BLOCK_DEPTHS, BackboneConfig
from d2serve.model.config import (
    CASCADE_HEADS,
    NO_LAYERS,
    RES5_HEADS,
    AnchorConfig,
    BoxHeadConfig,
    BoxPredictorConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    PoolerConfig,
    RetinaNetConfig,
    ROIHeadsConfig,
    RPNConfig,
    SelectionConfig,
    SemanticConfig,
)

ANCHORS = "MODEL.ANCHOR_GENERATOR"
HEADS = "MODEL.ROI_HEADS"
BOX = "MODEL.ROI_BOX_HEAD"
CASCADE = "MODEL.ROI_BOX_CASCADE_HEAD"
MASK = "MODEL.ROI_MASK_HEAD"
KEYPOINT = "MODEL.ROI_KEYPOINT_HEAD"


def read_rpn(values: ConfigValues, backbone: BackboneConfig) -> RPNConfig:
    """Read MODEL.RPN and MODEL.ANCHOR_GENERATOR."""
    for name in ("MODEL.LOAD_PROPOSALS", "MODEL.PROPOSAL_GENERATOR.NAME", "MODEL.RPN.HEAD_NAME"):
        values[name]
    features = read_features("MODEL.RPN.IN_FEATURES", values, backbone)
    return RPNConfig(
        in_features=features,
        conv_dims=tuple(values["MODEL.RPN.CONV_DIMS"]),
        box_weights=tuple(values["MODEL.RPN.BBOX_REG_WEIGHTS"]),
        pre_nms_topk=values["MODEL.RPN.PRE_NMS_TOPK_TEST"],
        post_nms_topk=values["MODEL.RPN.POST_NMS_TOPK_TEST"],
        nms_threshold=values["MODEL.RPN.NMS_THRESH"],
        min_box_size=values["MODEL.PROPOSAL_GENERATOR.MIN_SIZE"],
        anchors=_read_anchors(values, len(features)),
    )


def read_retinanet(values: ConfigValues, backbone: BackboneConfig) -> RetinaNetConfig:
    """Read MODEL.RETINANET and MODEL.ANCHOR_GENERATOR."""
    features = read_features("MODEL.RETINANET.IN_FEATURES", values, backbone)
    return RetinaNetConfig(
        in_features=features,
        num_classes=values["MODEL.RETINANET.NUM_CLASSES"],
        num_convs=values["MODEL.RETINANET.NUM_CONVS"],
        norm=values["MODEL.RETINANET.NORM"],
        box_weights=tuple(values["MODEL.RETINANET.BBOX_REG_WEIGHTS"]),
        score_threshold=values["MODEL.RETINANET.SCORE_THRESH_TEST"],
        topk_per_level=values["MODEL.RETINANET.TOPK_CANDIDATES_TEST"],
        nms_threshold=values["MODEL.RETINANET.NMS_THRESH_TEST"],
        max_detections=values["TEST.DETECTIONS_PER_IMAGE"],
        anchors=_read_anchors(values, len(features)),
    )


def read_semantic(values: ConfigValues, backbone: BackboneConfig) -> SemanticConfig:
    """Read MODEL.SEM_SEG_HEAD."""
    values["MODEL.SEM_SEG_HEAD.NAME"]
    return SemanticConfig(
        in_features=read_features("MODEL.SEM_SEG_HEAD.IN_FEATURES", values, backbone),
        num_classes=values["MODEL.SEM_SEG_HEAD.NUM_CLASSES"],
        conv_dim=values["MODEL.SEM_SEG_HEAD.CONVS_DIM"],
        common_stride=values["MODEL.SEM_SEG_HEAD.COMMON_STRIDE"],
        norm=values["MODEL.SEM_SEG_HEAD.NORM"],
    )


def read_features(name: str, values: ConfigValues, backbone: BackboneConfig) -> tuple[str, ...]:
    """Read the names of a head's feature maps, which are consecutive levels of the backbone."""
    features, available = tuple(values[name]), backbone.features
    first = available.index(features[0]) if features[0] in available else 0
    if features != available[first : first + len(features)]:
        values.add_conflict(name, f"supported: consecutive levels of {list(available)!r}")
    return features


def _read_anchors(values: ConfigValues, levels: int) -> AnchorConfig:
    values[f"{ANCHORS}.NAME"]
    return AnchorConfig(
        sizes=_per_level(f"{ANCHORS}.SIZES", values, levels),
        ratios=_per_level(f"{ANCHORS}.ASPECT_RATIOS", values, levels),
        offset=values[f"{ANCHORS}.OFFSET"],
    )


def _per_level(name: str, values: ConfigValues, levels: int) -> tuple[tuple[float, ...], ...]:
    rows = tuple(tuple(row) for row in values[name])
    if len(rows) not in (1, levels) or len({len(row) for row in rows}) > 1:
        values.add_conflict(name, "must be one list, or a list of equal length per level")
    return rows * levels if len(rows) == 1 else rows


def read_roi_heads(values: ConfigValues, backbone: BackboneConfig) -> ROIHeadsConfig:
    """Read MODEL.ROI_HEADS and the heads on top."""
    name = values[f"{HEADS}.NAME"]
    features = read_features(f"{HEADS}.IN_FEATURES", values, backbone)
    heads = ROIHeadsConfig(
        name=name,
        in_features=features,
        pooler=_read_pooler(values, BOX),
        box=_read_box_head(values) if name != RES5_HEADS else NO_LAYERS,
        predictor=BoxPredictorConfig(
            num_classes=values[f"{HEADS}.NUM_CLASSES"],
            class_agnostic=values[f"{BOX}.CLS_AGNOSTIC_BBOX_REG"],
            sigmoid_scores=values[f"{BOX}.USE_SIGMOID_CE"],
            box_weights=tuple(values[f"{BOX}.BBOX_REG_WEIGHTS"]),
        ),
        cascade_weights=_read_cascade_weights(values) if name == CASCADE_HEADS else (),
        selection=SelectionConfig(
            score_threshold=values[f"{HEADS}.SCORE_THRESH_TEST"],
            nms_threshold=values[f"{HEADS}.NMS_THRESH_TEST"],
            max_detections=values["TEST.DETECTIONS_PER_IMAGE"],
        ),
        mask=_read_mask_head(values) if values["MODEL.MASK_ON"] else None,
        keypoint=_read_keypoint_head(values) if values["MODEL.KEYPOINT_ON"] else None,
    )
    if name == RES5_HEADS:
        _check_res5(values, backbone)
    return heads


def _read_box_head(values: ConfigValues) -> BoxHeadConfig:
    values[f"{BOX}.NAME"]
    head = BoxHeadConfig(
        num_conv=values[f"{BOX}.NUM_CONV"],
        conv_dim=values[f"{BOX}.CONV_DIM"],
        num_fc=values[f"{BOX}.NUM_FC"],
        fc_dim=values[f"{BOX}.FC_DIM"],
        norm=values[f"{BOX}.NORM"],
    )
    if head.num_conv + head.num_fc == 0:
        values.add_conflict(f"{BOX}.NUM_FC", f"must be at least 1 if {BOX}.NUM_CONV is 0")
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


def _read_mask_head(values: ConfigValues) -> MaskHeadConfig:
    values[f"{MASK}.NAME"]
    return MaskHeadConfig(
        pooler=_read_pooler(values, MASK),
        num_conv=values[f"{MASK}.NUM_CONV"],
        conv_dim=values[f"{MASK}.CONV_DIM"],
        norm=values[f"{MASK}.NORM"],
        class_agnostic=values[f"{MASK}.CLS_AGNOSTIC_MASK"],
    )


def _read_keypoint_head(values: ConfigValues) -> KeypointHeadConfig:
    values[f"{KEYPOINT}.NAME"]
    return KeypointHeadConfig(
        pooler=_read_pooler(values, KEYPOINT),
        conv_dims=tuple(values[f"{KEYPOINT}.CONV_DIMS"]),
        num_keypoints=values[f"{KEYPOINT}.NUM_KEYPOINTS"],
    )


def _read_pooler(values: ConfigValues, head: str) -> PoolerConfig:
    return PoolerConfig(
        resolution=values[f"{head}.POOLER_RESOLUTION"],
        sampling_ratio=values[f"{head}.POOLER_SAMPLING_RATIO"],
        aligned=values[f"{head}.POOLER_TYPE"] == "ROIAlignV2",
    )


def _check_res5(values: ConfigValues, backbone: BackboneConfig) -> None:
    if values["MODEL.KEYPOINT_ON"]:
        values.add_conflict("MODEL.KEYPOINT_ON", f"must be False for {RES5_HEADS}")
    if backbone.fpn is not None or values[f"{HEADS}.IN_FEATURES"] != ["res4"]:
        values.add_conflict(
            f"{HEADS}.IN_FEATURES", f"must be ['res4'] of a ResNet without FPN for {RES5_HEADS}"
        )
    if backbone.resnet.depth in BASIC_BLOCK_DEPTHS:
        values.add_conflict("MODEL.RESNETS.DEPTH", f"must be 50 or more for {RES5_HEADS}")
    if backbone.resnet.deform[-1]:
        values.add_conflict(
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE", f"must be False in the last stage for {RES5_HEADS}"
        )
