"""What the package's models answer, before any mask is pasted that need not be."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from handler.detector.answers import BOX_MASKS, Answer, label_segments


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
