"""Sections of a Detectron2 config -> typed configuration."""

from d2serve.building.config_values import ConfigValues
from d2serve.model.config import (
    BASIC_BLOCK_DEPTHS,
    CASCADE_HEADS,
    NO_LAYERS,
    RES5_HEADS,
    STAGES,
    AnchorConfig,
    BackboneConfig,
    BoxHeadConfig,
    BoxPredictorConfig,
    DeformConfig,
    FPNConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    PoolerConfig,
    ResNetConfig,
    RetinaNetConfig,
    ROIHeadsConfig,
    RPNConfig,
    SelectionConfig,
    SemanticConfig,
)

ON_POOLING = "build_resnet_fpn_backbone"
ON_CONVOLUTIONS = "build_retinanet_resnet_fpn_backbone"


def read_backbone(values: ConfigValues) -> BackboneConfig:
    """Reads MODEL.BACKBONE, MODEL.RESNETS and MODEL.FPN."""
    name = values["MODEL.BACKBONE.NAME"]
    resnet = _read_resnet(values)
    if name not in (ON_POOLING, ON_CONVOLUTIONS):
        return BackboneConfig(resnet, fpn=None)
    features = tuple(values["MODEL.FPN.IN_FEATURES"])
    stages = STAGES[: resnet.last_stage - 1]
    if not features or features != stages[-len(features) :] or features[-1] != "res5":
        offered = f"MODEL.RESNETS.OUT_FEATURES, here {values['MODEL.RESNETS.OUT_FEATURES']!r}"
        values.refuse("MODEL.FPN.IN_FEATURES", f"must be the last of {offered}, up to 'res5'")
    if resnet.res5_dilation != 1:
        values.refuse("MODEL.RESNETS.RES5_DILATION", "must be 1 under a pyramid")
    fpn = FPNConfig(
        in_features=features,
        out_channels=values["MODEL.FPN.OUT_CHANNELS"],
        fuse_type=values["MODEL.FPN.FUSE_TYPE"],
        norm=values["MODEL.FPN.NORM"],
        top_convolutions=name == ON_CONVOLUTIONS,
    )
    return BackboneConfig(resnet, fpn)


def _read_resnet(values: ConfigValues) -> ResNetConfig:
    out_features = values["MODEL.RESNETS.OUT_FEATURES"]
    stages = [STAGES.index(name) + 2 for name in out_features if name in STAGES]
    if len(stages) < len(out_features):
        values.refuse("MODEL.RESNETS.OUT_FEATURES", f"there are {', '.join(STAGES)}")
    deform = DeformConfig(
        values["MODEL.RESNETS.DEFORM_MODULATED"], values["MODEL.RESNETS.DEFORM_NUM_GROUPS"]
    )
    per_stage = values["MODEL.RESNETS.DEFORM_ON_PER_STAGE"]
    config = ResNetConfig(
        depth=values["MODEL.RESNETS.DEPTH"],
        num_groups=values["MODEL.RESNETS.NUM_GROUPS"],
        width_per_group=values["MODEL.RESNETS.WIDTH_PER_GROUP"],
        stride_in_1x1=values["MODEL.RESNETS.STRIDE_IN_1X1"],
        res2_out_channels=values["MODEL.RESNETS.RES2_OUT_CHANNELS"],
        stem_out_channels=values["MODEL.RESNETS.STEM_OUT_CHANNELS"],
        norm=values["MODEL.RESNETS.NORM"],
        res5_dilation=values["MODEL.RESNETS.RES5_DILATION"],
        deform=tuple(deform if deforms else None for deforms in per_stage),
        last_stage=max(stages, default=2),
    )
    if config.depth in BASIC_BLOCK_DEPTHS:
        _require_basic(values)
    return config


def _require_basic(values: ConfigValues) -> None:
    needed = {
        "RES2_OUT_CHANNELS": 64,
        "NUM_GROUPS": 1,
        "RES5_DILATION": 1,
        "DEFORM_ON_PER_STAGE": [False] * 4,
    }
    for name, value in needed.items():
        if values[f"MODEL.RESNETS.{name}"] != value:
            values.refuse(f"MODEL.RESNETS.{name}", f"must be {value} for depth 18 and 34")


ANCHORS = "MODEL.ANCHOR_GENERATOR"


def read_rpn(values: ConfigValues, backbone: BackboneConfig) -> RPNConfig:
    """Reads MODEL.RPN and MODEL.ANCHOR_GENERATOR."""
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
    """Reads MODEL.RETINANET and MODEL.ANCHOR_GENERATOR."""
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
    """Reads MODEL.SEM_SEG_HEAD."""
    values["MODEL.SEM_SEG_HEAD.NAME"]
    return SemanticConfig(
        in_features=read_features("MODEL.SEM_SEG_HEAD.IN_FEATURES", values, backbone),
        num_classes=values["MODEL.SEM_SEG_HEAD.NUM_CLASSES"],
        conv_dim=values["MODEL.SEM_SEG_HEAD.CONVS_DIM"],
        common_stride=values["MODEL.SEM_SEG_HEAD.COMMON_STRIDE"],
        norm=values["MODEL.SEM_SEG_HEAD.NORM"],
    )


def read_features(name: str, values: ConfigValues, backbone: BackboneConfig) -> tuple[str, ...]:
    """Which of the backbone's feature maps a head takes: consecutive ones."""
    features, offered = tuple(values[name]), backbone.features
    first = offered.index(features[0]) if features[0] in offered else 0
    if features != offered[first : first + len(features)]:
        values.refuse(name, f"supported: consecutive levels of {list(offered)!r}")
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
        values.refuse(name, "needs one list, or one of equal length per level")
    return rows * levels if len(rows) == 1 else rows


HEADS = "MODEL.ROI_HEADS"
BOX = "MODEL.ROI_BOX_HEAD"
CASCADE = "MODEL.ROI_BOX_CASCADE_HEAD"
MASK = "MODEL.ROI_MASK_HEAD"
KEYPOINT = "MODEL.ROI_KEYPOINT_HEAD"


def read_roi_heads(values: ConfigValues, backbone: BackboneConfig) -> ROIHeadsConfig:
    """Reads MODEL.ROI_HEADS and the heads on top."""
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
        _require_res5(values, backbone)
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
        values.refuse(f"{BOX}.NUM_FC", f"and {BOX}.NUM_CONV too, but the box head needs a layer")
    return head


def _read_cascade_weights(values: ConfigValues) -> tuple[tuple[float, ...], ...]:
    weights = tuple(tuple(row) for row in values[f"{CASCADE}.BBOX_REG_WEIGHTS"])
    if len(weights) != len(values[f"{CASCADE}.IOUS"]):
        values.refuse(f"{CASCADE}.BBOX_REG_WEIGHTS", f"needs a list for each of {CASCADE}.IOUS")
    if not values[f"{BOX}.CLS_AGNOSTIC_BBOX_REG"]:
        values.refuse(f"{BOX}.CLS_AGNOSTIC_BBOX_REG", f"must be True for {CASCADE_HEADS}")
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


def _require_res5(values: ConfigValues, backbone: BackboneConfig) -> None:
    if values["MODEL.KEYPOINT_ON"]:
        values.refuse("MODEL.KEYPOINT_ON", f"{RES5_HEADS} has no keypoints")
    if backbone.fpn is not None or values[f"{HEADS}.IN_FEATURES"] != ["res4"]:
        values.refuse(f"{HEADS}.IN_FEATURES", f"{RES5_HEADS} takes only ['res4'] of a plain ResNet")
    if backbone.resnet.depth in BASIC_BLOCK_DEPTHS:
        values.refuse("MODEL.RESNETS.DEPTH", f"{RES5_HEADS} needs 50 or more")
    if backbone.resnet.deform[-1]:
        values.refuse(
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE", f"{RES5_HEADS} has no deformable last stage"
        )
