"""The region proposals of lazy configs."""

from typing import Any

from handler.rcnn.config.backbone import AnyBackboneConfig
from handler.rcnn.config.dense import AnchorConfig, RPNConfig
from handler.rcnn.config.kinds import Key, fraction, is_number, names, number_lists, numbers, only
from handler.rcnn.config.lazy.kinds import train_and_test
from handler.rcnn.config.lazy.node import LazyNode

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
