"""RetinaNet and Detectron2's FCOS of a lazy config as typed configuration."""

from d2serve.building.key_types import integer, number, one_of, only, overlap
from d2serve.building.lazy_node import NORM, LazyNode, equal_integers
from d2serve.building.lazy_rpn import read_anchors, read_box_weights, read_features
from d2serve.model.backbone_config import AnyBackboneConfig, SimpleFPNConfig
from d2serve.model.config import RetinaNetConfig
from d2serve.model.fcos_config import FCOSConfig, TowerConfig

TRAINING_KEYS = (
    "anchor_matcher",
    "box_reg_loss_type",
    "center_sampling_radius",
    "focal_loss_alpha",
    "focal_loss_gamma",
    "smooth_l1_beta",
)
# Norms whose statistics are those of all levels.
SHARED_NORM = one_of("", "GN", "FrozenBN", "LN", None)


def read_retinanet(node: LazyNode, backbone: AnyBackboneConfig) -> RetinaNetConfig:
    """Read the arguments of `RetinaNet`."""
    node.ignore(*TRAINING_KEYS)
    features = read_features("head_in_features", node, backbone)
    anchors = read_anchors(node.child("anchor_generator"), features)
    head = node.child("head")
    head.target("RetinaNetHead")
    head.check_equal("num_anchors", anchors.per_cell)
    num_classes = node.required("num_classes", integer(80, 1))
    return RetinaNetConfig(
        in_features=features,
        num_classes=num_classes,
        num_convs=_read_subnets(head, num_classes, backbone),
        norm=head.value("norm", NORM) or "",
        box_weights=read_box_weights(node),
        score_threshold=node.value("test_score_thresh", number(0.05)),
        topk_per_level=node.value("test_topk_candidates", integer(1000, 0)),
        nms_threshold=node.value("test_nms_thresh", overlap(0.5)),
        max_detections=node.value("max_detections_per_image", integer(100)),
        anchors=anchors,
    )


def read_fcos(node: LazyNode, backbone: AnyBackboneConfig) -> FCOSConfig:
    """Read the arguments of `FCOS`, which is that of AdelaiDet with other names."""
    node.ignore(*TRAINING_KEYS)
    node.value("box2box_transform", only(None))
    head = node.child("head")
    head.target("FCOSHead")
    num_classes = node.required("num_classes", integer(80, 1))
    tower = TowerConfig(_read_subnets(head, num_classes, backbone))
    threshold = node.value("test_score_thresh", number(0.2))
    return FCOSConfig(
        in_features=read_features("head_in_features", node, backbone),
        num_classes=num_classes,
        share=TowerConfig(0),
        classes=tower,
        boxes=tower,
        norm=head.value("norm", SHARED_NORM) or "",
        use_scale=False,
        # The threshold is for the root of class score times quality, which is never negative.
        score_threshold=threshold**2 if threshold >= 0 else -1.0,
        threshold_with_quality=True,
        topk_per_level=node.value("test_topk_candidates", integer(1000, 0)),
        nms_threshold=node.value("test_nms_thresh", overlap(0.6)),
        max_detections=node.value("max_detections_per_image", integer(100, 1)),
    )


def _read_subnets(head: LazyNode, num_classes: int, backbone: AnyBackboneConfig) -> int:
    """Read the number of convolutions before the predictions."""
    head.ignore("input_shape", "prior_prob")
    head.check_equal("num_classes", num_classes)
    dims: list[int] = head.required("conv_dims", equal_integers([256], 1))
    channels = _channels(backbone)
    if dims[0] != channels:
        head.add_conflict("conv_dims", f"must be {channels}, the channels of the backbone")
    return len(dims)


def _channels(backbone: AnyBackboneConfig) -> int:
    if isinstance(backbone, SimpleFPNConfig):
        return backbone.out_channels
    assert backbone.fpn is not None, "lazy configs without FPN are refused"
    return backbone.fpn.out_channels
