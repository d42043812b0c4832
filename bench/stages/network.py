"""The forward pass, and NMS, beside Detectron2's, whose forward pass does not paste its masks here,
because d2serve leaves that to the encoder. The note compares the detections of both."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from bench import upstream
from bench.comparison import DETECTRON2, OURS, Calls, Comparison
from bench.workloads import Scale, image_of
from d2serve.detections import Detections, RGBImage
from d2serve.detector.native import NativeDetector
from d2serve.model.box_head import Candidates, select_boxes
from d2serve.model.heads_config import SelectionConfig
from tests.goldens.comparison import compare

NMS_SIZE_HW = (800, 1067)
CLASSES, OBJECTS, PROPOSALS_PER_OBJECT = 80, 100, 10
# Spread of an object's proposals, relative to its size.
JITTER = 0.1
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def forward(scale: Scale) -> Iterator[Comparison]:
    """A comparison for each model and precision; Detectron2 always computes in float32."""
    image = image_of(scale.image_wh)
    for model in scale.models:
        baseline = upstream.Upstream(model, scale.device) if upstream.installed() else None
        for precision in scale.precisions:
            detector = scale.detector(model, precision)
            calls: Calls = {OURS: partial(detector.detect, [image])}
            if baseline is not None:
                calls[DETECTRON2] = partial(baseline.detect, image)
            note = _note(detector, image, None if scale.device.type == "cuda" else baseline)
            yield Comparison("forward", precision, calls, model.name, 1, note)


def _note(detector: NativeDetector, image: RGBImage, baseline: upstream.Upstream | None) -> str:
    [outcome] = detector.detect([image])
    assert isinstance(outcome.output, Detections)
    count = f"{len(outcome.output)} detections"
    if baseline is None:
        return count
    same = compare(baseline.golden.predict(image), outcome.output)
    matched = f"{same.matched} of {same.expected} of {DETECTRON2} match"
    errors = f"errors: {same.box_error_px:.4f} px, {same.score_error:.6f} in score"
    return f"{count}; {matched}; {errors}, mask IoU {same.mask_iou}"


def nms(scale: Scale) -> Iterator[Comparison]:
    """Score threshold, class-wise NMS and top-k, a comparison for each batch size."""
    config = SelectionConfig(score_threshold=0.05, nms_threshold=0.5, max_detections=100)
    for batch in scale.batches:
        images = [[each.to(scale.device) for each in _scored(seed)] for seed in range(batch)]
        calls: Calls = {OURS: partial(_ours, images, config)}
        if upstream.installed():
            calls[DETECTRON2] = partial(_upstream, images, config)
        case = f"{OBJECTS * PROPOSALS_PER_OBJECT} boxes, batch {batch}"
        yield Comparison("nms", case, calls, images=batch)


def _scored(seed: int) -> list[Tensor]:
    """Output of a box head for a hundred partly overlapping objects, with ten proposals around
    each: Float32[P, K] scores, Float32[P, 4 * K] deltas of Float32[P, 4] proposals."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.tensor(NMS_SIZE_HW[::-1])
    centres = torch.rand(OBJECTS, 2, generator=generator) * sides
    spans = (0.05 + 0.2 * torch.rand(OBJECTS, 2, generator=generator)) * sides
    objects = torch.cat((centres - spans / 2, centres + spans / 2), dim=1)
    count = OBJECTS * PROPOSALS_PER_OBJECT
    noise = torch.randn(count, CLASSES, 4, generator=generator) * JITTER
    logits = torch.randn(count, CLASSES + 1, generator=generator)
    logits[torch.arange(count), torch.arange(count) // PROPOSALS_PER_OBJECT % CLASSES] += 6
    scores, deltas = logits.softmax(dim=1)[:, :-1], (noise * torch.tensor(WEIGHTS)).flatten(1)
    return [scores, deltas, objects.repeat_interleave(PROPOSALS_PER_OBJECT, dim=0)]


def _ours(images: Sequence[list[Tensor]], config: SelectionConfig) -> object:
    scores, deltas, proposals = (torch.cat(each) for each in zip(*images, strict=True))
    counts = [len(image[0]) for image in images]
    candidates = Candidates(scores, deltas, proposals, WEIGHTS, counts)
    return select_boxes(candidates, [NMS_SIZE_HW] * len(images), config)


def _upstream(images: Sequence[list[Tensor]], config: SelectionConfig) -> object:
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference

    # It expects a column for the background, which it drops.
    scores = [torch.nn.functional.pad(image[0], (0, 1)) for image in images]
    boxes = [Box2BoxTransform(WEIGHTS).apply_deltas(*image[1:]) for image in images]
    limits = (config.score_threshold, config.nms_threshold, config.max_detections)
    return fast_rcnn_inference(boxes, scores, [NMS_SIZE_HW] * len(images), *limits)
