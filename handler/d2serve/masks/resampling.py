"""Bilinear resampling in two steps, as networks with full-image masks scale their logits: first to
the padded input, then to the original image."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SizeHW = tuple[int, int]


class LinearStep(NamedTuple):
    """Linear interpolation along one axis, with the weights that torch computes.

    Attributes:
        below, above: Int64[N] indices of the two values that each of N results lies between.
        weight_below, weight_above: Float32[N] their weights.
    """

    below: Tensor
    above: Tensor
    weight_below: Tensor
    weight_above: Tensor


class ResampledAxis(NamedTuple):
    """Two steps along one axis, from M nodes, the logits, to N pixels.

    Attributes:
        first: from the nodes to pixels of the resized image.
        second: from these to the pixels of the original image.
        lowest, highest: Int64[N] the first and the last node that a pixel depends on, ascending.
        weights: Float32[N, M] both steps at once.
    """

    first: LinearStep
    second: LinearStep
    lowest: Tensor
    highest: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Resampling:
    """The two steps from logits to pixels of the original image.

    Attributes:
        nodes_hw: height and width of the logits.
        padded_hw: height and width of the network's input, to which the logits are scaled.
        size_hw: height and width of the resized image, the top left part of the input.
        original_hw: height and width of the original image, to which this part is scaled.
        aligned: whether the nodes are at every s-th pixel of the input (AdelaiDet's
            `aligned_bilinear`) or at the centers of its squares of s x s pixels (torch's
            `align_corners=False`).
    """

    nodes_hw: SizeHW
    padded_hw: SizeHW
    size_hw: SizeHW
    original_hw: SizeHW
    aligned: bool = False

    def axes(self) -> tuple[ResampledAxis, ResampledAxis]:
        """The vertical and the horizontal axis."""
        step = _aligned_step if self.aligned else _centered_step
        sides = zip(self.nodes_hw, self.padded_hw, self.size_hw, self.original_hw, strict=True)
        vertical, horizontal = (
            _in_two_steps(
                nodes,
                LinearStep(*(part[:size] for part in step(nodes, padded))),
                _centered_step(size, original),
            )
            for nodes, padded, size, original in sides
        )
        return vertical, horizontal

    def dense(self, logits: Tensor) -> Tensor:
        """Float32[Q, h, w] -> Float32[Q, H, W] of the original image, by torch's own functions."""
        height, width = self.size_hw
        scale = _scale_aligned if self.aligned else _scale_centered
        return _scale_centered(scale(logits, self.padded_hw)[:, :height, :width], self.original_hw)


def _scale_centered(values: Tensor, size_hw: SizeHW) -> Tensor:
    return F.interpolate(values[None], size_hw, mode="bilinear", align_corners=False)[0]


def _scale_aligned(values: Tensor, size_hw: SizeHW) -> Tensor:
    height, width = values.shape[1:]
    stride = size_hw[0] // height
    framed = F.pad(values[None], (0, 1, 0, 1), mode="replicate")
    sides = (stride * height + 1, stride * width + 1)
    scaled = F.interpolate(framed, sides, mode="bilinear", align_corners=True)
    shifted = F.pad(scaled, (stride // 2, 0, stride // 2, 0), mode="replicate")
    return shifted[0, :, : size_hw[0], : size_hw[1]]


def _centered_step(count: int, result: int) -> LinearStep:
    """The positions of `interpolate` with `align_corners=False`, rounded to float32."""
    scale = torch.tensor(count).float() / torch.tensor(result).float()
    positions = scale * (torch.arange(result).float() + 0.5) - 0.5
    return _between(positions.clamp(min=0), count)


def _aligned_step(count: int, result: int) -> LinearStep:
    stride = result // count
    scale = torch.tensor(count).float() / torch.tensor(count * stride).float()
    return _between(scale * (torch.arange(result) - stride // 2).clamp(min=0).float(), count)


def _between(positions: Tensor, count: int) -> LinearStep:
    """Interpolate `count` values at Float32[N] positions of at least 0."""
    below = positions.long().clamp(max=count - 1)
    weight = (positions - below).clamp(0, 1)
    return LinearStep(below, (below + 1).clamp(max=count - 1), 1 - weight, weight)


def _in_two_steps(nodes: int, first: LinearStep, second: LinearStep) -> ResampledAxis:
    weights = torch.zeros((len(second.below), nodes), dtype=torch.float64)
    pixels = torch.arange(len(weights))
    for middle, outer in ((second.below, second.weight_below), (second.above, second.weight_above)):
        for node, inner in ((first.below, first.weight_below), (first.above, first.weight_above)):
            products = inner[middle].double() * outer.double()
            weights.index_put_((pixels, node[middle]), products, accumulate=True)
    lowest, highest = first.below[second.below], first.above[second.above]
    return ResampledAxis(first, second, lowest, highest, weights.float())
