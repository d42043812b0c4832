"""The config of what predicts on whole feature maps: anchors, RPN, RetinaNet, semantic classes."""

from dataclasses import dataclass

from handler.rcnn.config.backbone import BackboneConfig
from handler.rcnn.config.values import ConfigValues

ANCHORS = "MODEL.ANCHOR_GENERATOR"


@dataclass(frozen=True)
class AnchorConfig:
    """Per level: sizes in pixels of the network's input (square roots of areas) and ratios height /
    width; `offset` is where in its cell an anchor's centre lies, 0 (top left) to 1."""

    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[tuple[float, ...], ...]
    offset: float

    @property
    def per_cell(self) -> int:
        """How many anchors each pixel of a feature map has."""
        return len(self.sizes[0]) * len(self.ratios[0])


@dataclass(frozen=True)
class RPNConfig:
    """Region proposals."""

    in_features: tuple[str, ...]
    conv_dims: tuple[int, ...]
    box_weights: tuple[float, ...]
    pre_nms_topk: int
    post_nms_topk: int
    nms_threshold: float
    min_box_size: float
    anchors: AnchorConfig


@dataclass(frozen=True)
class RetinaNetConfig:
    """Dense detection by two subnets of `num_convs` convolutions on every level."""

    in_features: tuple[str, ...]
    num_classes: int
    num_convs: int
    norm: str
    box_weights: tuple[float, ...]
    score_threshold: float
    topk_per_level: int
    nms_threshold: float
    max_detections: int
    anchors: AnchorConfig


@dataclass(frozen=True)
class SemanticConfig:
    """A class for every pixel, predicted at `common_stride` pixels of the network's input."""

    in_features: tuple[str, ...]
    num_classes: int
    conv_dim: int
    common_stride: int
    norm: str


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
