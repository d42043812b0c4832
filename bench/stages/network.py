"""The forward pass part by part, and NMS, beside Detectron2's.

The forward pass of Detectron2 does not paste its masks here, because d2serve leaves that to the
encoder. The note compares the detections of both.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench import upstream
from bench.comparison import DETECTRON2, OURS, Comparison, Implementation
from bench.timing import PartClock, synchronize
from bench.workloads import Scale, image_of
from d2serve.detections import Detections, Picture
from d2serve.detector.native import NativeDetector
from d2serve.model.box_head import Candidates, select_boxes
from d2serve.model.config import SelectionConfig
from d2serve.model.structures import SizeHW
from tests.goldens.comparison import compare

PARTS = ("resize", "backbone", "proposals", "boxes", "masks", "rest")
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
            implementations = {OURS: _by_part(detector.model, partial(detector.detect, [image]))}
            if baseline is not None:
                call = partial(baseline.detect, image)
                implementations[DETECTRON2] = _by_part(baseline.model, call)
            note = _note(detector, image, None if scale.device.type == "cuda" else baseline)
            yield Comparison("forward", precision, implementations, model.name, note=note)


def _by_part(model: Any, call: Callable[[], object]) -> Implementation:
    clock = PartClock()
    clock.follow(model)

    def run() -> None:
        clock.start()
        call()
        clock.end_of("rest")

    return Implementation(run, clock.laps)


def _note(detector: NativeDetector, image: Picture, baseline: upstream.Upstream | None) -> str:
    [outcome] = detector.detect([image])
    assert isinstance(outcome.found, Detections)
    count = f"{len(outcome.found)} detections"
    if baseline is None:
        return count
    same = compare(baseline.golden.predict(image), outcome.found)
    return (
        f"{count}; {same.matched} of {same.expected} of {DETECTRON2} match, with errors of at most "
        f"{same.box_error_px:.4f} px and {same.score_error:.6f} in score, and a mask IoU of at "
        f"least {1.0 if same.mask_iou is None else same.mask_iou:.4f}"
    )


@dataclass(frozen=True)
class Scored:
    """Output of a box head for one image: Float32[P, K] scores and Float32[P, 4 * K] deltas of
    Float32[P, 4] proposals."""

    scores: Tensor
    deltas: Tensor
    proposals: Tensor


def nms(scale: Scale) -> Iterator[Comparison]:
    """Score threshold, class-wise NMS and top-k, a comparison for each batch size."""
    config = SelectionConfig(score_threshold=0.05, nms_threshold=0.5, max_detections=100)
    for batch in scale.batches:
        scored = [_scored(seed, scale.device) for seed in range(batch)]
        implementations = {OURS: _synchronized(partial(_ours, scored, config))}
        if upstream.installed():
            implementations[DETECTRON2] = _synchronized(partial(_upstream, scored, config))
        case = f"{OBJECTS * PROPOSALS_PER_OBJECT} boxes, batch {batch}"
        yield Comparison("nms", case, implementations, images=batch)


def _scored(seed: int, device: torch.device) -> Scored:
    """A hundred objects, some of which overlap, with ten proposals around each."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.tensor(NMS_SIZE_HW[::-1])
    centres = torch.rand(OBJECTS, 2, generator=generator) * sides
    spans = (0.05 + 0.2 * torch.rand(OBJECTS, 2, generator=generator)) * sides
    objects = torch.cat((centres - spans / 2, centres + spans / 2), dim=1)
    count = OBJECTS * PROPOSALS_PER_OBJECT
    proposals = objects.repeat_interleave(PROPOSALS_PER_OBJECT, dim=0)
    noise = torch.randn(count, CLASSES, 4, generator=generator) * JITTER
    deltas = (noise * torch.tensor(WEIGHTS)).flatten(1)
    logits = torch.randn(count, CLASSES + 1, generator=generator)
    logits[torch.arange(count), torch.arange(count) // PROPOSALS_PER_OBJECT % CLASSES] += 6
    scores = logits.softmax(dim=1)[:, :-1]
    return Scored(scores.to(device), deltas.to(device), proposals.to(device))


def _ours(scored: list[Scored], config: SelectionConfig) -> object:
    sizes_hw: list[SizeHW] = [NMS_SIZE_HW] * len(scored)
    scores = torch.cat([each.scores for each in scored])
    deltas = torch.cat([each.deltas for each in scored])
    proposals = torch.cat([each.proposals for each in scored])
    counts = [len(each.scores) for each in scored]
    return select_boxes(Candidates(scores, deltas, proposals, WEIGHTS, counts), sizes_hw, config)


def _upstream(scored: list[Scored], config: SelectionConfig) -> object:
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference

    # It expects a column for the background, which it drops.
    scores = [torch.nn.functional.pad(each.scores, (0, 1)) for each in scored]
    transform = Box2BoxTransform(WEIGHTS)
    boxes = [transform.apply_deltas(each.deltas, each.proposals) for each in scored]
    limits = (config.score_threshold, config.nms_threshold, config.max_detections)
    return fast_rcnn_inference(boxes, scores, [NMS_SIZE_HW] * len(scored), *limits)


def _synchronized(call: Callable[[], object]) -> Implementation:
    def run() -> None:
        call()
        synchronize()

    return Implementation(run)
