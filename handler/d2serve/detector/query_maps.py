"""Queries -> a class or a segment for each pixel, computed tile by tile."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from d2serve.masks.panoptic import Panoptic, Segment
from d2serve.masks.resampling import Resampling
from d2serve.masks.tiles import Interpolation, ScaledLogits, tiles
from d2serve.model.mask_former_config import QueryInferenceConfig

# Mask probability from which a pixel belongs to a query.
CONFIDENT = 0.5


def pixel_classes(
    scores: Tensor, logits: Tensor, resampling: Resampling, resize_first: bool
) -> npt.NDArray[np.int32]:
    """Int32[H, W]: the class with the highest sum of class scores times mask probabilities.

    Args:
        scores: Float32[Q, K] in 0..1.
        logits: Float32[Q, h, w].
        resampling: of the logits.
        resize_first: whether these sums are computed for pixels of the original image, or for those
            of the resized one and then scaled.
    """
    classes = torch.empty(resampling.original_hw, dtype=torch.int32, device=logits.device)
    weights = scores.t().contiguous()
    depth = max(scores.shape)
    if resize_first:
        scaled = ScaledLogits(logits, resampling)
        for tile in tiles(resampling.original_hw, depth):
            classes[tile] = _sums(weights, scaled[tile]).argmax(dim=0).int()
        return classes.cpu().numpy()
    resized = ScaledLogits(logits, replace(resampling, original_hw=resampling.size_hw))
    interpolation = Interpolation(resampling, logits.device)
    for tile in tiles(resampling.original_hw, depth):
        sums = _sums(weights, resized[interpolation.source(tile)])
        classes[tile] = interpolation(sums, tile).argmax(dim=0).int()
    return classes.cpu().numpy()


def panoptic_map(
    scores: Tensor, logits: Tensor, resampling: Resampling, config: QueryInferenceConfig
) -> Panoptic:
    """The segments of the queries that win enough of their pixels.

    Each pixel belongs to the query with the highest product of class score and mask probability.
    Queries of one stuff class are one segment; ids count from 1 in the order of the queries.

    Args:
        scores: Float32[Q, K + 1] in 0..1, the last one of "no object", or Float32[Q, K].
        logits: Float32[Q, h, w].
        resampling: of the logits.
        config: the selection.
    """
    best, classes = scores.max(dim=-1)
    is_kept = (classes != config.num_classes) & (best > config.object_mask_threshold)
    if config.temperature:
        best, classes = sharpened(scores, config.temperature).max(dim=-1)
    best, kept = best[is_kept], classes[is_kept].tolist()
    if not kept:
        return Panoptic(np.zeros(resampling.original_hw, np.int32), ())
    winners = _winners(best, ScaledLogits(logits[is_kept], resampling), resampling.original_hw)
    ids, segments = np.zeros(len(kept) + 1, np.int32), dict[tuple[int, int], Segment]()
    for query in winners.sufficient(config):
        class_index, is_thing = kept[query], kept[query] in config.things
        # Queries of one stuff class have the same key.
        key = (class_index, query if is_thing else -1)
        score = float(best[query]) if is_thing else None
        segment = segments.setdefault(key, Segment(len(segments) + 1, class_index, is_thing, score))
        ids[query] = segment.id
    return Panoptic(ids[winners.map(config.confident_pixels_only)], tuple(segments.values()))


def sharpened(scores: Tensor, temperature: float) -> Tensor:
    """Softmax of Float32[Q, K] scores over the classes; the scores if the temperature is 0."""
    return (scores / temperature).softmax(dim=-1) if temperature else scores


def _sums(weights: Tensor, logits: Tensor) -> Tensor:
    """Float32[K, h, w] from Float32[K, Q] and Float32[Q, h, w]."""
    probabilities = logits.sigmoid_().flatten(1)
    return torch.mm(weights, probabilities).unflatten(1, logits.shape[1:])


@dataclass(frozen=True)
class _Winners:
    """The query that wins each pixel.

    Attributes:
        queries: Int16[H, W] the query with the highest product of score and probability.
        is_confident: Bool[H, W] whether its mask probability is at least CONFIDENT.
        areas: Int64[Q] number of pixels whose mask probability is at least CONFIDENT.
    """

    queries: npt.NDArray[np.int16]
    is_confident: npt.NDArray[np.bool_]
    areas: npt.NDArray[np.int64]

    def sufficient(self, config: QueryInferenceConfig) -> list[int]:
        """The queries that win enough pixels, in comparison to their areas."""
        count = len(self.areas)
        won = np.bincount(self.queries.ravel(), minlength=count)
        confident = np.bincount(self.queries[self.is_confident], minlength=count)
        present = confident if config.confident_pixels_only else won
        shares = won / np.maximum(self.areas, 1)
        is_sufficient = (self.areas > 0) & (present > 0) & (shares >= config.overlap_threshold)
        return list(map(int, np.flatnonzero(is_sufficient)))

    def map(self, confident_pixels_only: bool) -> npt.NDArray[np.int16]:
        """Int16[H, W]: the query of each pixel, or the number of queries for a pixel of none."""
        if not confident_pixels_only:
            return self.queries
        return np.where(self.is_confident, self.queries, np.int16(len(self.areas)))


def _winners(scores: Tensor, logits: ScaledLogits, size_hw: tuple[int, int]) -> _Winners:
    """The winners of Float32[Q] scores and Float32[Q, h, w] logits."""
    device = scores.device
    queries = torch.empty(size_hw, dtype=torch.int16, device=device)
    is_confident = torch.empty(size_hw, dtype=torch.bool, device=device)
    areas = torch.zeros(len(scores), dtype=torch.int64, device=device)
    for tile in tiles(size_hw, len(scores)):
        probabilities = logits[tile].sigmoid_()
        areas += (probabilities >= CONFIDENT).sum((1, 2))
        best = (probabilities * scores[:, None, None]).argmax(dim=0)
        queries[tile] = best.short()
        is_confident[tile] = probabilities.gather(0, best[None])[0] >= CONFIDENT
    return _Winners(*(each.cpu().numpy() for each in (queries, is_confident, areas)))
