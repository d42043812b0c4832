"""Region proposals of a lazy config as typed configuration."""

from d2serve.building.key_types import (
    divisors,
    names,
    number,
    number_lists,
    numbers,
    offset,
    only,
    overlap,
    widths,
)
from d2serve.building.lazy_node import LazyNode, train_and_test
from d2serve.model.backbone_config import AnyBackboneConfig
from d2serve.model.heads_config import AnchorConfig, RPNConfig

TRAINING_KEYS_OF_RPN = (
    "anchor_matcher",
    "batch_size_per_image",
    "positive_fraction",
    "anchor_boundary_thresh",
    "loss_weight",
    "box_reg_loss_type",
    "smooth_l1_beta",
)
NUMBERS = numbers([1.0], positive=True)
NUMBER_LISTS = number_lists([[1.0]])


def read_rpn(node: LazyNode, backbone: AnyBackboneConfig) -> RPNConfig:
    """Read `model.proposal_generator`."""
    node.target("RPN")
    node.ignore(*TRAINING_KEYS_OF_RPN)
    head = node.child("head")
    head.target("StandardRPNHead")
    head.ignore("in_channels", "num_anchors")  # determined by the backbone and the anchors
    head.value("box_dim", only(4))
    features = read_features("in_features", node, backbone)
    return RPNConfig(
        in_features=features,
        conv_dims=tuple(head.value("conv_dims", widths([-1]))),
        box_weights=read_box_weights(node),
        pre_nms_topk=node.required("pre_nms_topk", train_and_test(1000, 0))[1],
        post_nms_topk=node.required("post_nms_topk", train_and_test(1000))[1],
        nms_threshold=node.value("nms_thresh", overlap(0.7)),
        min_box_size=node.value("min_box_size", number(0.0)),
        anchors=read_anchors(node.child("anchor_generator"), features),
    )


def read_features(name: str, node: LazyNode, backbone: AnyBackboneConfig) -> tuple[str, ...]:
    """Read the names of a head's feature maps, which are consecutive levels of the backbone."""
    available = backbone.features
    features = tuple(node.required(name, names([*available])))
    first = available.index(features[0]) if features[0] in available else 0
    if features == available[first : first + len(features)]:
        return features
    node.add_conflict(name, f"must be consecutive levels of {list(available)!r}")
    return available


def read_box_weights(node: LazyNode) -> tuple[float, ...]:
    """Read the weights of `box2box_transform`."""
    transform = node.child("box2box_transform")
    transform.target("Box2BoxTransform")
    return tuple(transform.required("weights", divisors([1.0] * 4, count=4)))


def stride_of(feature: str) -> int:
    """The stride of a level in pixels: 4 for p2, 8 for p3, ..."""
    return int(2 ** int(feature.removeprefix("p")))


def read_anchors(node: LazyNode, features: tuple[str, ...]) -> AnchorConfig:
    """Read a `DefaultAnchorGenerator` for these levels."""
    node.target("DefaultAnchorGenerator")
    node.check_equal("strides", [stride_of(name) for name in features])
    return AnchorConfig(
        sizes=_per_level("sizes", node, len(features)),
        ratios=_per_level("aspect_ratios", node, len(features)),
        offset=node.value("offset", offset(0.5)),
    )


def _per_level(name: str, node: LazyNode, levels: int) -> tuple[tuple[float, ...], ...]:
    """Read one list per level, or one for all levels."""
    key = NUMBERS if NUMBERS.check(node.given.get(name)) else NUMBER_LISTS
    given = node.required(name, key)
    rows = tuple(tuple(row) for row in given) if key is NUMBER_LISTS else (tuple(given),)
    if len(rows) not in (1, levels) or len({len(row) for row in rows}) > 1:
        node.add_conflict(name, "must be one list, or a list of equal length per level")
    return rows * levels if len(rows) == 1 else rows
