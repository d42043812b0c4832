"""Mask probabilities at points, rounded as Detectron2 rounds them."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

MAX_POINTS = 1 << 16
Integers = npt.NDArray[np.int64]


def ranges(starts: Integers, lengths: Integers) -> Integers:
    """Int64[sum of lengths]: ranges of ascending integers, one after the other.

    Args:
        starts: Int64[K], the first number of each range.
        lengths: Int64[K], the length of each range, 0 or more.

    Examples:
        >>> ranges(np.array([5, 0, 7]), np.array([2, 0, 1])).tolist()
        [5, 6, 7]
    """
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)


def box_coordinates(
    pixels: npt.NDArray[np.int64],
    starts: npt.NDArray[np.float32],
    ends: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Float32[K]: coordinates of pixel centers in boxes, -1 at the box's start and 1 at its end.

    Each step rounds to float32, as in `detectron2.layers.mask_ops`. Infinite for boxes that are too
    thin for float32.

    Args:
        pixels: Int64[K] columns, or rows, of the image.
        starts: Float32[K] x1, or y1, of each pixel's box.
        ends: Float32[K] x2, or y2, of each pixel's box.
    """
    with np.errstate(over="ignore"):
        shares = (pixels.astype(np.float32) + np.float32(0.5) - starts) / (ends - starts)
        return shares * np.float32(2) - np.float32(1)


def sample(
    probabilities: npt.NDArray[np.float32],
    masks: npt.NDArray[np.int64],
    points_xy: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Float32[K]: bilinear samples by `torch.nn.functional.grid_sample`, as in Detectron2.

    Torch computes them, because its kernels round differently on different CPUs.

    Args:
        probabilities: Float32[N, M, M].
        masks: Int64[K], the mask of each point, ascending.
        points_xy: Float32[K, 2] in `box_coordinates`.
    """
    import torch  # slow, and a client without torch never samples
    from torch.nn.functional import grid_sample

    samples = [np.empty(0, dtype=np.float32)]
    for batch in _batches(len(masks)):
        firsts = np.flatnonzero(np.diff(masks[batch], prepend=-1))
        counts = np.diff(firsts, append=len(masks[batch]))
        # Points of one mask are padded to a row of the grid.
        present, rows = masks[batch][firsts], np.repeat(np.arange(len(firsts)), counts)
        columns = ranges(np.zeros_like(counts), counts)
        grid = np.zeros((len(present), 1, counts.max(), 2), dtype=np.float32)
        grid[rows, 0, columns] = points_xy[batch]
        sampled = grid_sample(
            torch.from_numpy(probabilities[present])[:, None],
            torch.from_numpy(grid),
            align_corners=False,
        )
        samples.append(sampled.numpy()[rows, 0, 0, columns])
    return np.concatenate(samples)


def _batches(count: int) -> Iterator[slice]:
    return (slice(start, start + MAX_POINTS) for start in range(0, count, MAX_POINTS))
