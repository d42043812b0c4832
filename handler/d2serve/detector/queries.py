"""Queries -> instances, pixel classes and a panoptic map (MaskFormer and Mask2Former).

The rules are those of the two projects' `MaskFormer.forward` (Cheng et al. 2021 and 2022), except
that boxes are the tight boxes of the masks, which the projects leave at zero, that instances
without a pixel are dropped, and that the best instances come first.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from d2serve.detections import Detections
from d2serve.detector.query_maps import panoptic_map, pixel_classes
from d2serve.masks.image_masks import threshold_logits
from d2serve.masks.resampling import Resampling
from d2serve.model.config import QueryInferenceConfig
from d2serve.model.structures import QueryOutput


def query_detections(queries: QueryOutput, config: QueryInferenceConfig) -> Detections:
    """Select the segments of one image, and scale them to the original image."""
    logits = queries.mask_logits.float()
    scores = queries.class_logits.float().softmax(dim=-1)
    height, width = logits.shape[1:]
    resampling = Resampling(
        (height, width), queries.padded_hw, queries.size_hw, queries.original_hw
    )
    if config.instance:
        detections = _instances(scores[:, :-1], logits, resampling, config)
    else:
        detections = _no_instances(queries.original_hw)
    if config.semantic:
        semantic = pixel_classes(scores[:, :-1], logits, resampling, config.resize_first)
        detections = replace(detections, semantic=semantic)
    if config.panoptic:
        panoptic = panoptic_map(scores, logits, resampling, config)
        detections = replace(detections, panoptic=panoptic)
    return detections


def _instances(
    scores: Tensor, logits: Tensor, resampling: Resampling, config: QueryInferenceConfig
) -> Detections:
    """The best pairs of a query and a class; the score is that of the class times the mean
    probability of the mask's pixels.

    Args:
        scores: Float32[Q, K] in 0..1.
        logits: Float32[Q, h, w].
        resampling: of the logits.
        config: the selection.
    """
    count = min(config.max_detections, scores.numel())
    best, pairs = (each.cpu() for each in scores.flatten().topk(count))
    queries, classes = pairs // config.num_classes, pairs % config.num_classes
    if config.panoptic:
        is_thing = torch.isin(classes, torch.tensor(config.things, dtype=torch.int64))
        best, queries, classes = best[is_thing], queries[is_thing], classes[is_thing]
    # A query may be an instance of several classes.
    used, places = queries.unique(return_inverse=True)
    masks = threshold_logits(logits[used.to(logits.device)], resampling)
    means = masks.probabilities[places.numpy()].astype(np.float32)
    own_scores = best.numpy() * means
    order = np.argsort(-own_scores, kind="stable")
    order = order[masks.runs.areas()[places.numpy()[order]] > 0]
    runs = masks.runs.select(places.numpy()[order])
    return Detections(
        resampling.original_hw,
        boxes_xyxy=runs.boxes(),
        scores=own_scores[order],
        classes=classes.numpy()[order],
        mask_runs=runs,
    )


def _no_instances(size_hw: tuple[int, int]) -> Detections:
    return Detections(
        size_hw,
        boxes_xyxy=np.zeros((0, 4), np.float32),
        scores=np.zeros(0, np.float32),
        classes=np.zeros(0, np.int64),
    )
