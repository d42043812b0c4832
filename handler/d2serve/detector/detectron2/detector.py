"""The detector on the upstream `detectron2` package."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from d2serve.building.yaml_config import ConfigError
from d2serve.detections import Detections, Picture
from d2serve.detector.base import Prepared, Size
from d2serve.detector.batching import BatchedDetector
from d2serve.detector.detectron2.model import Resizing, build_model, load_weights, padding_of
from d2serve.detector.detectron2.outputs import BOX_MASKS, Answer, detections_of, label_segments
from d2serve.detector.native import PLAIN_WEIGHTS_FILE, WEIGHTS_FILE
from d2serve.model.image_list import resize_picture
from d2serve.model.weights import read_npz, read_weights
from d2serve.settings import Settings


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


def answers_of(model: Any, inputs: list[dict[str, Any]]) -> list[Answer]:
    """What the model's own forward gives, but masks of R-CNNs stay small and over their boxes."""
    from detectron2.modeling import GeneralizedRCNN, PanopticFPN

    if isinstance(model, PanopticFPN):
        found, semantics = model.inference(inputs, do_postprocess=False)
        return [
            _panoptic_answer(model, *each) for each in zip(found, semantics, inputs, strict=True)
        ]
    if isinstance(model, GeneralizedRCNN):
        found = model.inference(inputs, do_postprocess=False)
        return [{"instances": _to_picture(*pair)} for pair in zip(found, inputs, strict=True)]
    return [_with_segments(model, answer) for answer in model(inputs)]


def _to_picture(found: Any, given: Mapping[str, Any]) -> Any:
    """`detector_postprocess` without its pasting: under another name it leaves masks alone."""
    from detectron2.modeling import detector_postprocess

    if found.has("pred_masks"):
        masks = found.pred_masks
        found.remove("pred_masks")
        found.set(BOX_MASKS, masks)
    return detector_postprocess(found, given["height"], given["width"])


def _panoptic_answer(model: Any, found: Any, semantic: Tensor, given: Mapping[str, Any]) -> Answer:
    """As `PanopticFPN.inference`, but only those masks are pasted that the map needs."""
    from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
    from detectron2.modeling.postprocessing import sem_seg_postprocess
    from detectron2.structures import Instances, ROIMasks

    size_hw = given["height"], given["width"]
    semantic = sem_seg_postprocess(semantic, found.image_size, *size_hw)
    found = _to_picture(found, given)
    sure = found[found.scores >= model.combine_instances_score_thresh]
    pasted = ROIMasks(sure.get(BOX_MASKS)[:, 0]).to_bitmasks(sure.pred_boxes, *size_hw).tensor
    panoptic = combine_semantic_and_instance_outputs(
        Instances(size_hw, scores=sure.scores, pred_classes=sure.pred_classes, pred_masks=pasted),
        semantic.argmax(dim=0),
        model.combine_overlap_thresh,
        model.combine_stuff_area_thresh,
        model.combine_instances_score_thresh,
    )
    return {"instances": found, "sem_seg": semantic, "panoptic_seg": panoptic}


def _with_segments(model: Any, answer: Answer) -> Answer:
    """Panoptic-DeepLab says what a segment is in the map itself, and no more."""
    if "panoptic_seg" not in answer or answer["panoptic_seg"][1] is not None:
        return answer
    labels = answer["panoptic_seg"][0]
    things = set(model.meta.thing_dataset_id_to_contiguous_id.values())
    return {**answer, "panoptic_seg": label_segments(labels, things, model.meta.label_divisor)}


class UpstreamDetector(BatchedDetector):
    """Pictures in, detections out, many at a time."""

    def __init__(
        self, model: Any, resizing: Resizing, device: torch.device, settings: Settings
    ) -> None:
        self.model = model
        self.resizing = resizing
        self.device = device
        self.limits = limits_of(model)
        super().__init__(padding_of(model, resizing), settings)

    @classmethod
    def from_folder(
        cls, folder: Path, device: torch.device, settings: Settings
    ) -> "UpstreamDetector":
        """Loads the config and the weights of an unpacked archive.

        Raises:
            PackageError: the package cannot be imported.
            ConfigError, CheckpointError: either does not fit.
        """
        model, resizing = build_model(folder, device)
        plain = folder / PLAIN_WEIGHTS_FILE
        stored = read_npz(plain) if plain.exists() else read_weights(folder / WEIGHTS_FILE)
        load_weights(model, stored)
        return cls(model, resizing, device, settings)

    @property
    def num_classes(self) -> int:
        """How many classes of instances the model tells apart; 0 where it finds none."""
        return self.limits.num_classes

    @property
    def num_stuff_classes(self) -> int:
        """How many classes of stuff the model tells apart; 0 where it does not segment."""
        return self.limits.num_stuff_classes

    @property
    def score_threshold(self) -> float:
        """The least score, 0..1, that the network lets through."""
        return self.limits.score_threshold

    @property
    def max_detections(self) -> int:
        """How many detections of one picture the network gives at most."""
        return self.limits.max_detections

    def prepare(self, picture: Picture) -> Prepared:
        """Resizes UInt8[H, W, 3] RGB as the network wants it."""
        return Prepared(
            resize_picture(picture, self.resizing), (picture.shape[0], picture.shape[1])
        )

    def _min_size(self) -> int:
        return self.resizing.min_size

    def _network(self, images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[Detections]:
        inputs = [
            {"image": image.to(self.device), "height": height, "width": width}
            for image, (height, width) in zip(images, sizes_hw, strict=True)
        ]
        with torch.inference_mode():
            answers = answers_of(self.model, inputs)
            return [detections_of(*pair) for pair in zip(answers, sizes_hw, strict=True)]
