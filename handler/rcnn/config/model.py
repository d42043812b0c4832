"""The part of a Detectron2 config that inference needs, typed and checked."""

from dataclasses import dataclass, replace
from typing import Any

from handler.rcnn.config.backbone import AnyBackboneConfig, BackboneConfig, read_backbone
from handler.rcnn.config.dense import (
    RetinaNetConfig,
    RPNConfig,
    SemanticConfig,
    read_retinanet,
    read_rpn,
    read_semantic,
)
from handler.rcnn.config.roi_heads import ROIHeadsConfig, read_roi_heads
from handler.rcnn.config.values import ConfigValues


@dataclass(frozen=True)
class InputConfig:
    """How a picture enters the network; sizes in pixels, `min_size` 0 means no resize."""

    channel_order: str
    min_size: int
    max_size: int
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]


@dataclass(frozen=True)
class ProposalNetworkConfig:
    """Proposals alone: boxes of one class."""

    rpn: RPNConfig


@dataclass(frozen=True)
class RCNNConfig:
    """Instances from proposals."""

    rpn: RPNConfig
    roi_heads: ROIHeadsConfig


@dataclass(frozen=True)
class PanopticConfig:
    """Instances and a class for every pixel, combined into one map of segments.

    Attributes:
        overlap_threshold: the part of an instance, 0..1, that surer ones may hide before it is left
            out.
        stuff_area_limit: stuff on fewer pixels is left out.
        instance_threshold: instances of lower scores, 0..1, are left out.
    """

    rcnn: RCNNConfig
    semantic: SemanticConfig
    overlap_threshold: float
    stuff_area_limit: int
    instance_threshold: float


@dataclass(frozen=True)
class OutputConfig:
    """What answers may hold.

    Attributes:
        num_classes: the classes of instances (things).
        num_stuff_classes: those of pixels; 0 where the model does not segment.
        score_threshold: the least score, 0..1, that the network lets through.
        max_detections: how many instances of one picture it gives at most.
    """

    num_classes: int
    num_stuff_classes: int
    score_threshold: float
    max_detections: int


Family = ProposalNetworkConfig | RCNNConfig | RetinaNetConfig | SemanticConfig | PanopticConfig


@dataclass(frozen=True)
class ModelConfig:
    """A whole network."""

    input: InputConfig
    backbone: AnyBackboneConfig
    family: Family

    @property
    def output(self) -> OutputConfig:
        """What the family's answers may hold."""
        return _output(self.family)


def parse_keys(explicit: dict[str, Any]) -> ModelConfig:
    """Checks what a config of keys sets explicitly, with Detectron2's defaults for the rest.

    Raises:
        ConfigError: see `parse_config`.
    """
    values = ConfigValues(explicit)
    values["VERSION"]
    backbone = read_backbone(values)
    config = ModelConfig(_read_input(values), backbone, _read_family(values, backbone))
    values.require_served()
    return config


def _read_input(values: ConfigValues) -> InputConfig:
    return InputConfig(
        channel_order=values["INPUT.FORMAT"],
        min_size=values["INPUT.MIN_SIZE_TEST"],
        max_size=values["INPUT.MAX_SIZE_TEST"],
        pixel_mean=tuple(values["MODEL.PIXEL_MEAN"]),
        pixel_std=tuple(values["MODEL.PIXEL_STD"]),
    )


def _read_family(values: ConfigValues, backbone: BackboneConfig) -> Family:
    match values["MODEL.META_ARCHITECTURE"]:
        case "ProposalNetwork":
            return ProposalNetworkConfig(read_rpn(values, backbone))
        case "RetinaNet":
            return read_retinanet(values, backbone)
        case "SemanticSegmentor":
            return read_semantic(values, backbone)
        case "PanopticFPN":
            return _read_panoptic(values, backbone)
        case _:
            return _read_rcnn(values, backbone)


def _read_rcnn(values: ConfigValues, backbone: BackboneConfig) -> RCNNConfig:
    return RCNNConfig(read_rpn(values, backbone), read_roi_heads(values, backbone))


def _read_panoptic(values: ConfigValues, backbone: BackboneConfig) -> PanopticConfig:
    combine = "MODEL.PANOPTIC_FPN.COMBINE"
    return PanopticConfig(
        rcnn=_read_rcnn(values, backbone),
        semantic=read_semantic(values, backbone),
        overlap_threshold=values[f"{combine}.OVERLAP_THRESH"],
        stuff_area_limit=values[f"{combine}.STUFF_AREA_LIMIT"],
        instance_threshold=values[f"{combine}.INSTANCES_CONFIDENCE_THRESH"],
    )


def _output(family: Family) -> OutputConfig:
    match family:
        case RCNNConfig(roi_heads=heads):
            selection = heads.selection
            return OutputConfig(
                heads.predictor.num_classes, 0, selection.score_threshold, selection.max_detections
            )
        case PanopticConfig(rcnn=rcnn, semantic=semantic):
            return replace(_output(rcnn), num_stuff_classes=semantic.num_classes)
        case RetinaNetConfig() as retinanet:
            return OutputConfig(
                retinanet.num_classes, 0, retinanet.score_threshold, retinanet.max_detections
            )
        case SemanticConfig() as semantic:
            return OutputConfig(0, semantic.num_classes, score_threshold=0.0, max_detections=1)
        case ProposalNetworkConfig(rpn=rpn):
            return OutputConfig(1, 0, score_threshold=0.0, max_detections=rpn.post_nms_topk)
