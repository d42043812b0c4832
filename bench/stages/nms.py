"""From the box head's scores and deltas to the best boxes: threshold, class-wise NMS and top-k."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bench import upstream
from bench.contest import DETECTRON2, OURS, Contest, Contestant
from bench.scale import Scale
from handler.rcnn.box_head import Candidates, select_boxes
from handler.rcnn.config.roi_heads import SelectionConfig
from handler.rcnn.instances import SizeHW

STAGE = "nms"
SIZE_HW = (800, 1067)
CLASSES = 80
OBJECTS, PROPOSALS_OF_EACH = 100, 10
# How far the boxes of an object lie apart, of its size.
JITTER = 0.1
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


@dataclass(frozen=True)
class Scored:
    """What the box head says of one picture: Float32[P, K] scores and Float32[P, 4 * K] deltas of
    Float32[P, 4] proposals."""

    scores: Tensor
    deltas: Tensor
    proposals: Tensor


def contests(scale: Scale) -> Iterator[Contest]:
    """One for each number of pictures together."""
    config = SelectionConfig(score_threshold=0.05, nms_threshold=0.5, max_detections=100)
    for batch in scale.batches:
        scored = [_scored(seed, scale.device) for seed in range(batch)]
        contestants = {OURS: Contestant(_waiting(partial(_ours, scored, config)))}
        if upstream.installed():
            contestants[DETECTRON2] = Contestant(_waiting(partial(_upstream, scored, config)))
        case = f"{OBJECTS * PROPOSALS_OF_EACH} boxes, batch {batch}"
        yield Contest(STAGE, case, contestants, pictures=batch)


def _scored(seed: int, device: torch.device) -> Scored:
    """A hundred objects, some of which overlap, with ten proposals around each."""
    generator = torch.Generator().manual_seed(seed)
    height, width = SIZE_HW
    sides = torch.tensor([width, height])
    centres = torch.rand(OBJECTS, 2, generator=generator) * sides
    spans = (0.05 + 0.2 * torch.rand(OBJECTS, 2, generator=generator)) * sides
    objects = torch.cat((centres - spans / 2, centres + spans / 2), dim=1)
    count = OBJECTS * PROPOSALS_OF_EACH
    proposals = objects.repeat_interleave(PROPOSALS_OF_EACH, dim=0)
    noise = torch.randn(count, CLASSES, 4, generator=generator) * JITTER
    deltas = (noise * torch.tensor(WEIGHTS)).flatten(1)
    logits = torch.randn(count, CLASSES + 1, generator=generator)
    logits[torch.arange(count), torch.arange(count) // PROPOSALS_OF_EACH % CLASSES] += 6
    scores = logits.softmax(dim=1)[:, :-1]
    return Scored(scores.to(device), deltas.to(device), proposals.to(device))


def _ours(scored: list[Scored], config: SelectionConfig) -> object:
    sizes_hw: list[SizeHW] = [SIZE_HW] * len(scored)
    scores = torch.cat([each.scores for each in scored])
    deltas = torch.cat([each.deltas for each in scored])
    proposals = torch.cat([each.proposals for each in scored])
    counts = [len(each.scores) for each in scored]
    return select_boxes(Candidates(scores, deltas, proposals, WEIGHTS, counts), sizes_hw, config)


def _upstream(scored: list[Scored], config: SelectionConfig) -> object:
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference

    # It wants a column for the background, which it drops.
    scores = [torch.nn.functional.pad(each.scores, (0, 1)) for each in scored]
    transform = Box2BoxTransform(WEIGHTS)
    boxes = [transform.apply_deltas(each.deltas, each.proposals) for each in scored]
    limits = (config.score_threshold, config.nms_threshold, config.max_detections)
    return fast_rcnn_inference(boxes, scores, [SIZE_HW] * len(scored), *limits)


def _waiting(call: Callable[[], object]) -> Callable[[], None]:
    """A GPU's work is done later than it is asked for."""

    def run() -> None:
        call()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()

    return run
