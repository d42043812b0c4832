"""Run a network of the upstream `detectron2` package on a batch."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from d2serve.detector.detectron2.outputs import BOX_MASKS, Output, label_segments


def run_inference(model: Any, inputs: list[dict[str, Any]]) -> list[Output]:
    """Return the outputs of the model's own forward pass.

    Masks of R-CNNs are not pasted: they stay small and relative to their boxes.

    Args:
        model: a network of the package.
        inputs: per image `image` (Float or UInt8[3, H, W]), and `height` and `width` of the
            original image in pixels.
    """
    from detectron2.modeling import GeneralizedRCNN, PanopticFPN

    if isinstance(model, PanopticFPN):
        instances, semantics = model.inference(inputs, do_postprocess=False)
        return [
            _panoptic_output(model, *image)
            for image in zip(instances, semantics, inputs, strict=True)
        ]
    if isinstance(model, GeneralizedRCNN):
        instances = model.inference(inputs, do_postprocess=False)
        return [{"instances": _rescale(*image)} for image in zip(instances, inputs, strict=True)]
    return [_with_segments(model, output) for output in model(inputs)]


def _rescale(instances: Any, size: Mapping[str, Any]) -> Any:
    """Apply `detector_postprocess` without pasting masks, which it finds by their name."""
    from detectron2.modeling import detector_postprocess

    if instances.has("pred_masks"):
        masks = instances.pred_masks
        instances.remove("pred_masks")
        instances.set(BOX_MASKS, masks)
    return detector_postprocess(instances, size["height"], size["width"])


def _panoptic_output(
    model: Any, instances: Any, semantic: Tensor, size: Mapping[str, Any]
) -> Output:
    """Combine as `PanopticFPN.inference` does, but paste only the masks of confident instances."""
    from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
    from detectron2.modeling.postprocessing import sem_seg_postprocess
    from detectron2.structures import Instances, ROIMasks

    size_hw = size["height"], size["width"]
    semantic = sem_seg_postprocess(semantic, instances.image_size, *size_hw)
    instances = _rescale(instances, size)
    confident = instances[instances.scores >= model.combine_instances_score_thresh]
    masks = ROIMasks(confident.get(BOX_MASKS)[:, 0]).to_bitmasks(confident.pred_boxes, *size_hw)
    panoptic = combine_semantic_and_instance_outputs(
        Instances(
            size_hw,
            scores=confident.scores,
            pred_classes=confident.pred_classes,
            pred_masks=masks.tensor,
        ),
        semantic.argmax(dim=0),
        model.combine_overlap_thresh,
        model.combine_stuff_area_thresh,
        model.combine_instances_score_thresh,
    )
    return {"instances": instances, "sem_seg": semantic, "panoptic_seg": panoptic}


def _with_segments(model: Any, output: Output) -> Output:
    """Add the list of segments, which Panoptic-DeepLab encodes in the map itself."""
    if "panoptic_seg" not in output or output["panoptic_seg"][1] is not None:
        return output
    labels = output["panoptic_seg"][0]
    things = set(model.meta.thing_dataset_id_to_contiguous_id.values())
    return {**output, "panoptic_seg": label_segments(labels, things, model.meta.label_divisor)}
