"""The config of the heads that look at regions: boxes, masks and keypoints."""

from dataclasses import dataclass

from handler.rcnn.config.backbone import BASIC_BLOCK_DEPTHS, BackboneConfig
from handler.rcnn.config.dense import read_features
from handler.rcnn.config.values import ConfigValues

HEADS = "MODEL.ROI_HEADS"
BOX = "MODEL.ROI_BOX_HEAD"
CASCADE = "MODEL.ROI_BOX_CASCADE_HEAD"
MASK = "MODEL.ROI_MASK_HEAD"
KEYPOINT = "MODEL.ROI_KEYPOINT_HEAD"

STANDARD_HEADS = "StandardROIHeads"
CASCADE_HEADS = "CascadeROIHeads"
RES5_HEADS = "Res5ROIHeads"


@dataclass(frozen=True)
class PoolerConfig:
    """RoIAlign to a square of `resolution` cells; `aligned` by half a pixel (ROIAlignV2);
    `sampling_ratio` points a cell and direction, 0 for as many as it has pixels."""

    resolution: int
    sampling_ratio: int
    aligned: bool


@dataclass(frozen=True)
class BoxHeadConfig:
    """Layers on each pooled region."""

    num_conv: int
    conv_dim: int
    num_fc: int
    fc_dim: int
    norm: str


@dataclass(frozen=True)
class BoxPredictorConfig:
    """Scores and boxes from a region's features."""

    num_classes: int
    class_agnostic: bool
    sigmoid_scores: bool
    box_weights: tuple[float, ...]


@dataclass(frozen=True)
class SelectionConfig:
    """Which of the scored boxes are detections."""

    score_threshold: float
    nms_threshold: float
    max_detections: int


@dataclass(frozen=True)
class MaskHeadConfig:
    """Convolutions on each region, then a mask for each class or for all alike."""

    pooler: PoolerConfig
    num_conv: int
    conv_dim: int
    norm: str
    class_agnostic: bool


@dataclass(frozen=True)
class KeypointHeadConfig:
    """Convolutions on each region, then a heatmap for each keypoint."""

    pooler: PoolerConfig
    conv_dims: tuple[int, ...]
    num_keypoints: int


@dataclass(frozen=True)
class ROIHeadsConfig:
    """`name` says what finds the boxes: one head, a cascade of them (whose stages have their own
    `cascade_weights`), or the backbone's last stage."""

    name: str
    in_features: tuple[str, ...]
    pooler: PoolerConfig
    box: BoxHeadConfig
    predictor: BoxPredictorConfig
    cascade_weights: tuple[tuple[float, ...], ...]
    selection: SelectionConfig
    mask: MaskHeadConfig | None
    keypoint: KeypointHeadConfig | None


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


NO_LAYERS = BoxHeadConfig(num_conv=0, conv_dim=0, num_fc=0, fc_dim=0, norm="")


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
