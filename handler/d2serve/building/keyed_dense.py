"""Heads on whole feature maps of a keyed config as typed configuration: proposals, RetinaNet and
semantic segmentation."""

from d2serve.building.config_values import ConfigValues
from d2serve.building.keyed_few_shot import read_decoupled
from d2serve.model.backbone_config import BackboneConfig, ResNetConfig
from d2serve.model.config import RetinaNetConfig
from d2serve.model.heads_config import AnchorConfig, RPNConfig, SemanticConfig

ANCHORS = "MODEL.ANCHOR_GENERATOR"


def read_rpn(values: ConfigValues, backbone: BackboneConfig) -> RPNConfig:
    """Read MODEL.RPN and MODEL.ANCHOR_GENERATOR."""
    if values["MODEL.PROPOSAL_GENERATOR.NAME"] == "FCOS":
        values.add_conflict("MODEL.PROPOSAL_GENERATOR.NAME", "must be 'RPN' for these heads")
    values["MODEL.RPN.HEAD_NAME"]
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
        decoupled=read_decoupled(values, "MODEL.RPN"),
    )


def read_retinanet(values: ConfigValues, backbone: BackboneConfig) -> RetinaNetConfig:
    """Read MODEL.RETINANET and MODEL.ANCHOR_GENERATOR."""
    features = read_features("MODEL.RETINANET.IN_FEATURES", values, backbone)
    return RetinaNetConfig(
        in_features=features,
        num_classes=values["MODEL.RETINANET.NUM_CLASSES"],
        num_convs=values["MODEL.RETINANET.NUM_CONVS"],
        norm=values["MODEL.RETINANET.NORM"] or "",
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
    features = _read_semantic_features(values, backbone)
    levels = [backbone.levels[backbone.features.index(name)] for name in features]
    if values["MODEL.SEM_SEG_HEAD.COMMON_STRIDE"] not in [2**n for n in range(min(levels) + 1)]:
        values.add_conflict(
            "MODEL.SEM_SEG_HEAD.COMMON_STRIDE",
            f"must be a power of 2 of at most {2 ** min(levels)}, the stride of {features[0]}",
        )
    return SemanticConfig(
        in_features=features,
        num_classes=values["MODEL.SEM_SEG_HEAD.NUM_CLASSES"],
        conv_dim=values["MODEL.SEM_SEG_HEAD.CONVS_DIM"],
        common_stride=values["MODEL.SEM_SEG_HEAD.COMMON_STRIDE"],
        norm=values["MODEL.SEM_SEG_HEAD.NORM"] or "",
    )


def _read_semantic_features(values: ConfigValues, backbone: BackboneConfig) -> tuple[str, ...]:
    """Read the feature maps that are added, as in Detectron2 finest first, other names left out."""
    name = "MODEL.SEM_SEG_HEAD.IN_FEATURES"
    given, available = values[name], _available(values, backbone)
    features = tuple(feature for feature in available if feature in given)
    if not features:
        values.add_conflict(name, f"supported: levels of {list(available)!r}")
        return available[:1]
    # Images are padded for res5; coarser maps have its size only for some images.
    if backbone.fpn is not None and len(features) > 1 and not {"p6", "p7"}.isdisjoint(features):
        values.add_conflict(name, "must be at most 'p5' if there are several levels")
    return features


def read_features(name: str, values: ConfigValues, backbone: BackboneConfig) -> tuple[str, ...]:
    """Read the names of a head's feature maps, which are of the backbone."""
    features, available = tuple(values[name]), _available(values, backbone)
    if not set(features) <= {*available}:
        values.add_conflict(name, f"supported: levels of {list(available)!r}")
        return available[-1:]
    return features


def _available(values: ConfigValues, backbone: BackboneConfig) -> tuple[str, ...]:
    """The feature maps that the backbone returns: without an FPN only those that are requested."""
    if backbone.fpn is not None or not isinstance(backbone.bottom_up, ResNetConfig):
        return backbone.features
    returned = values["MODEL.RESNETS.OUT_FEATURES"]
    return tuple(name for name in backbone.features if name in returned) or backbone.features


def read_levels(name: str, values: ConfigValues, backbone: BackboneConfig) -> tuple[str, ...]:
    """Read the names of the feature maps that regions are pooled from, of consecutive strides."""
    features = read_features(name, values, backbone)
    levels = [backbone.levels[backbone.features.index(feature)] for feature in features]
    if levels != [*range(levels[0], levels[0] + len(levels))]:
        available = list(backbone.features)
        values.add_conflict(name, f"supported: consecutive levels of {available!r}")
    return features


def _read_anchors(values: ConfigValues, levels: int) -> AnchorConfig:
    values[f"{ANCHORS}.NAME"]
    sizes = _per_level(f"{ANCHORS}.SIZES", values, levels)
    ratios = _per_level(f"{ANCHORS}.ASPECT_RATIOS", values, levels)
    # A conflict leaves the two of different lengths.
    if len({len(one) * len(other) for one, other in zip(sizes, ratios, strict=False)}) > 1:
        values.add_conflict(
            f"{ANCHORS}.SIZES", f"with {ANCHORS}.ASPECT_RATIOS must give each level equally many"
        )
    return AnchorConfig(sizes, ratios, values[f"{ANCHORS}.OFFSET"])


def _per_level(name: str, values: ConfigValues, levels: int) -> tuple[tuple[float, ...], ...]:
    given = values[name]
    # One list is for all levels.
    rows = given if isinstance(given[0], (list, tuple)) else [given]
    if len(rows) not in (1, levels):
        values.add_conflict(name, f"must be one list, or one for each of {levels} levels")
    return tuple(tuple(row) for row in (rows * levels if len(rows) == 1 else rows))
