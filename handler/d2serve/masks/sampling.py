"""Mask probabilities at points, rounded as Detectron2 rounds them; compiled by TorchScript."""

import torch
from torch import Tensor


def spread(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Ranges of ascending integers, one after the other.

    Args:
        starts: Int[K], the first number of each range.
        lengths: Int[K], the length of each range, 0 or more.

    Returns:
        Int[sum of lengths] index of the range of each number, and Int[sum of lengths] the numbers.

    Examples:
        >>> [each.tolist() for each in spread(torch.tensor([5, 0, 7]), torch.tensor([2, 0, 1]))]
        [[0, 0, 2], [5, 6, 7]]
    """
    owners = torch.repeat_interleave(lengths)
    shifts = starts - lengths.cumsum(0, dtype=lengths.dtype) + lengths
    numbers = torch.arange(owners.numel(), dtype=lengths.dtype)
    return owners, numbers + shifts.index_select(0, owners)


def box_coordinates(pixels: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Float32[K]: coordinates of pixel centers in boxes, -1 at the box's start and 1 at its end.

    Each step rounds to float32, as in `detectron2.layers.mask_ops`. Infinite for boxes that are too
    thin for float32.

    Args:
        pixels: Int[K] columns, or rows, of the image.
        starts: Float32[K] x1, or y1, of each pixel's box.
        ends: Float32[K] x2, or y2, of each pixel's box.
    """
    return (pixels.float() + 0.5 - starts) / (ends - starts) * 2.0 - 1.0


def sample(probabilities: Tensor, masks: Tensor, points_xy: Tensor, most_points: int) -> Tensor:
    """Float32[K]: bilinear samples by `grid_sample`, as in Detectron2.

    Args:
        probabilities: Float32[N, M, M].
        masks: Int[K], the mask of each point, ascending.
        points_xy: Float32[K, 2] in `box_coordinates`.
        most_points: points that are sampled together, which bounds the memory.
    """
    samples = [torch.empty([0])]
    for first in range(0, masks.numel(), most_points):
        present, row, counts = torch.unique_consecutive(
            masks[first : first + most_points], return_inverse=True, return_counts=True
        )
        # Points of one mask are padded to a row of the grid.
        most = int(counts.max())
        firsts = counts.cumsum(0) - counts
        places = torch.arange(row.numel()) - firsts.index_select(0, row) + row * most
        grid = torch.zeros([present.numel() * most, 2])
        grid.index_copy_(0, places, points_xy[first : first + most_points])
        sampled = torch.grid_sampler(
            probabilities.index_select(0, present).unsqueeze(1),
            grid.view(-1, 1, most, 2),
            0,  # bilinear
            0,  # zeros outside
            False,
        )
        samples.append(sampled.view(-1).index_select(0, places))
    return torch.cat(samples)
