"""Queries -> instances, pixel classes and a panoptic map (MaskFormer, Mask2Former, Mask DINO).

The rules are those of the projects' `MaskFormer.forward` (Cheng et al. 2021 and 2022) and
`MaskDINO.forward` (Li et al. 2023), except that MaskFormer's boxes are the tight boxes of the
masks, which the projects leave at zero, and Mask DINO's are limited to the image, that instances
without a box or with a score of 0, because their mask has no pixel, are dropped, and that the best
instances come first.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from d2serve.detections import Detections
from d2serve.detector.query_maps import panoptic_map, pixel_classes, sharpened
from d2serve.masks.image_masks import threshold_logits
from d2serve.masks.resampling import Resampling
from d2serve.model.mask_former_config import QueryInferenceConfig
from d2serve.model.structures import QueryOutput, around, clip


def query_detections(queries: QueryOutput, config: QueryInferenceConfig) -> Detections:
    """Select the segments of one image, and scale them to the original image."""
    logits = queries.mask_logits.float()
    class_logits = queries.class_logits.float()
    scores = class_logits.softmax(dim=-1) if config.has_no_object else class_logits.sigmoid()
    known = scores[:, : config.num_classes]
    height, width = logits.shape[1:]
    resampling = Resampling(
        (height, width), queries.padded_hw, queries.size_hw, queries.original_hw
    )
    if config.instance:
        detections = _instances(known, queries.boxes, logits, resampling, config)
    else:
        detections = _no_instances(queries.original_hw)
    if config.semantic:
        weights = sharpened(known, config.temperature)
        semantic = pixel_classes(weights, logits, resampling, config.resize_first)
        detections = replace(detections, semantic=semantic)
    if config.panoptic:
        panoptic = panoptic_map(scores, logits, resampling, config)
        detections = replace(detections, panoptic=panoptic)
    return detections


def _instances(
    scores: Tensor,
    shares: Tensor | None,
    logits: Tensor,
    resampling: Resampling,
    config: QueryInferenceConfig,
) -> Detections:
    """The best pairs of a query and a class; the score is that of the class times the mean
    probability of the mask's pixels, unless the config leaves the latter out.

    Args:
        scores: Float32[Q, K] in 0..1.
        shares: `QueryOutput.boxes`.
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
    of_mask, own_scores = places.numpy(), best.numpy()
    if config.rate_masks:
        own_scores = own_scores * masks.probabilities[of_mask].astype(np.float32)
    if shares is None:
        boxes = masks.runs.boxes()[of_mask]
    else:
        boxes = _boxes(shares.cpu()[queries], resampling)
    is_kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if config.rate_masks:
        is_kept &= masks.runs.areas()[of_mask] > 0
    order = np.argsort(-own_scores, kind="stable")
    order = order[is_kept[order]]
    runs = masks.runs.select(of_mask[order])
    return Detections(
        resampling.original_hw,
        boxes_xyxy=boxes[order],
        scores=own_scores[order],
        classes=classes.numpy()[order],
        mask_runs=runs,
    )


def _boxes(shares: Tensor, resampling: Resampling) -> npt.NDArray[np.float32]:
    """Float32[N, 4] xyxy in the original image from shares of the padded input."""
    x, y, width, height = shares.unbind(1)
    sides = zip(resampling.padded_hw, resampling.size_hw, resampling.original_hw, strict=True)
    scale_y, scale_x = (padded / size * original for padded, size, original in sides)
    boxes = around(x, y, 0.5 * width, 0.5 * height)
    boxes *= torch.tensor([scale_x, scale_y, scale_x, scale_y])
    original_height, original_width = resampling.original_hw
    limits = torch.tensor([original_width, original_height]).float().repeat(2)
    return clip(boxes, limits).numpy()


def _no_instances(size_hw: tuple[int, int]) -> Detections:
    return Detections(
        size_hw,
        boxes_xyxy=np.zeros((0, 4), np.float32),
        scores=np.zeros(0, np.float32),
        classes=np.zeros(0, np.int64),
    )
