"""Mask probabilities at points, rounded as Detectron2 rounds them."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

Integers = npt.NDArray[np.int64]


def ranges(starts: Integers, lengths: Integers) -> Integers:
    """Int64[sum of lengths]: one range of rising numbers after the other.

    Args:
        starts: Int64[K], each one's first number.
        lengths: Int64[K], how many numbers each has, 0 or more.
    """
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)


POINTS_AT_ONCE = 1 << 16


def box_coordinates(
    pixels: npt.NDArray[np.int64],
    starts: npt.NDArray[np.float32],
    ends: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Float32[K]: where the centres of pixels lie in boxes, -1 the box's start and 1 its end.

    Each step rounds to float32, as in `detectron2.layers.mask_ops`. It is infinite where a box is
    too thin for a number.

    Args:
        pixels: Int64[K] columns, or rows, of the picture.
        starts: Float32[K] x1, or y1, of the box of each.
        ends: Float32[K] x2, or y2.
    """
    with np.errstate(over="ignore"):
        shares = (pixels.astype(np.float32) + np.float32(0.5) - starts) / (ends - starts)
        return shares * np.float32(2) - np.float32(1)


def sample(
    probabilities: npt.NDArray[np.float32],
    masks: npt.NDArray[np.int64],
    points_xy: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Float32[K]: bilinear samples by `torch.nn.functional.grid_sample`, as Detectron2 takes them.

    Torch itself is asked because its kernels round differently from one CPU to another.

    Args:
        probabilities: Float32[N, M, M].
        masks: Int64[K], rising: which mask each point is in.
        points_xy: Float32[K, 2] in `box_coordinates`.
    """
    samples = [np.empty(0, dtype=np.float32)]
    for batch in _batches(len(masks)):
        firsts = np.flatnonzero(np.diff(masks[batch], prepend=-1))
        counts = np.diff(firsts, append=len(masks[batch]))
        present, places = masks[batch][firsts], np.repeat(np.arange(len(firsts)), counts)
        slots = ranges(np.zeros_like(counts), counts)
        grid = np.zeros((len(present), 1, counts.max(), 2), dtype=np.float32)
        grid[places, 0, slots] = points_xy[batch]
        sampled = F.grid_sample(
            torch.from_numpy(probabilities[present])[:, None],
            torch.from_numpy(grid),
            align_corners=False,
        )
        samples.append(sampled.numpy()[places, 0, 0, slots])
    return np.concatenate(samples)


def _batches(count: int) -> Iterator[slice]:
    return (slice(start, start + POINTS_AT_ONCE) for start in range(0, count, POINTS_AT_ONCE))
