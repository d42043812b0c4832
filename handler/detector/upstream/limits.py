"""What a model of the upstream `detectron2` package finds at most."""

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from handler.rcnn.yaml_config import ConfigError


@dataclass(frozen=True)
class Limits:
    """Of one picture's instances.

    Attributes:
        num_classes: how many classes the model tells apart; 0 where it finds no instances.
        score_threshold: the least score, 0..1, that it lets through.
        max_detections: how many it gives at most, at least 1.
        num_stuff_classes: how many classes of pixels it tells apart; 0 where it does not segment.
    """

    num_classes: int
    score_threshold: float
    max_detections: int
    num_stuff_classes: int = 0


def limits_of(model: Any) -> Limits:
    """Reads them off a built model, whatever config it came from.

    Raises:
        ConfigError: it is none of `detectron2.modeling.meta_arch`'s, nor Panoptic-DeepLab.
    """
    if hasattr(model, "roi_heads"):
        return replace(_of_roi_heads(model.roi_heads), num_stuff_classes=_stuff_classes(model))
    if hasattr(model, "max_detections_per_image"):  # RetinaNet, FCOS
        return Limits(model.num_classes, model.test_score_thresh, model.max_detections_per_image)
    if hasattr(model, "proposal_generator"):
        return Limits(1, 0.0, model.proposal_generator.post_nms_topk[False])
    if hasattr(model, "ins_embed_head"):  # Panoptic-DeepLab: things and stuff share one list
        classes = _stuff_classes(model)
        return Limits(classes, 0.0, model.top_k, classes)
    if hasattr(model, "sem_seg_head"):
        return Limits(0, 0.0, 1, _stuff_classes(model))
    raise ConfigError(
        f"{type(model).__name__} is no architecture of detectron2.modeling.meta_arch, "
        "so that nobody could say what its answers mean"
    )


def _of_roi_heads(heads: Any) -> Limits:
    predictor = heads.box_predictor
    if isinstance(predictor, nn.ModuleList):  # a cascade's last stage decides
        predictor = predictor[-1]
    return Limits(heads.num_classes, predictor.test_score_thresh, predictor.test_topk_per_image)


def _stuff_classes(model: Any) -> int:
    if not hasattr(model, "sem_seg_head"):
        return 0
    head = model.sem_seg_head
    predictor = getattr(head, "coarse_sem_seg_head", head).predictor  # PointRend refines another
    return int(predictor.out_channels)
