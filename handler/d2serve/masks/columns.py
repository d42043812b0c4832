"""Mask probabilities over boxes -> runs of set pixels, by the boundary crossings of columns.

The functions of tensors are compiled by TorchScript, see `unlocked`.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from d2serve.masks.grid_cells import BoundaryCells, boundary_cells
from d2serve.masks.sampling import box_coordinates, sample, spread
from d2serve.masks.unlocked import unlocked

# Samples that are computed together.
MOST_POINTS = 1 << 16
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def paste_by_columns(
    probabilities: Floats,
    boxes_xyxy: Floats,
    size_hw: tuple[int, int],
    threshold: float,
    margin: float,
    masks_together: int,
) -> tuple[Integers, Integers]:
    """Paste masks, without the interpreter lock; returns their `Runs.bounds` and `Runs.offsets`.

    Args:
        probabilities: Float32[N, M, M] in 0..1 over the boxes' extents.
        boxes_xyxy: Float32[N, 4] in pixels; a box without area has no pixels.
        size_hw: height and width of the image.
        threshold: minimum probability of a set pixel.
        margin: distance to the threshold within which rounding may decide.
        masks_together: number of masks that are pasted together, 1 or more.
    """
    tensors = torch.from_numpy(probabilities), torch.from_numpy(boxes_xyxy)
    bounds, offsets = _paste(*tensors, *size_hw, threshold, margin, masks_together, MOST_POINTS)
    return bounds.numpy(), offsets.numpy()


class _Columns(NamedTuple):
    """K pixel columns of masks.

    Attributes:
        masks: Int64[K] index of the mask.
        across: Float32[K] x in the mask's box, as in `box_coordinates`.
        lines: Int64[K] the line of grid nodes at or left of the column.
        shares: Float32[K] the position between this line and the next one, 0 to 1.
        tops: Int[K] number of the column's first pixel.
    """

    masks: Tensor
    across: Tensor
    lines: Tensor
    shares: Tensor
    tops: Tensor


class _Sections(NamedTuple):
    """J sections of columns, each within one boundary cell.

    Attributes:
        columns: Int64[J] index of the column, ascending.
        start: Int32[J] the first row that rounding may decide.
        end: Int32[J] the first row after those; its state and that of the following rows is known.
        is_set: Bool[J] this state.
    """

    columns: Tensor
    start: Tensor
    end: Tensor
    is_set: Tensor


@unlocked
def _paste(
    probabilities: Tensor,
    boxes_xyxy: Tensor,
    height: int,
    width: int,
    threshold: float,
    margin: float,
    masks_together: int,
    most_points: int,
) -> tuple[Tensor, Tensor]:
    all_bounds, all_counts = [torch.empty([0], dtype=torch.int64)], [torch.zeros([1]).long()]
    for first in range(0, probabilities.shape[0], masks_together):
        some = probabilities[first : first + masks_together]
        boxes = boxes_xyxy[first : first + masks_together]
        columns = _columns(boxes, some.shape[2], height, width)
        cells = boundary_cells(some, threshold - margin, threshold + margin)
        sections = _sections(columns, cells, boxes, some.shape[2], height, threshold, margin)
        pixels, is_set = _with_samples(some, boxes, columns, sections, threshold, most_points)
        bounds, counts = _bounds(_changes(pixels, is_set), some.shape[0], height * width + 1)
        all_bounds.append(bounds)
        all_counts.append(counts)
    return torch.cat(all_bounds), torch.cat(all_counts).cumsum(0)


def _columns(boxes_xyxy: Tensor, side: int, height: int, width: int) -> _Columns:
    """The columns that may have set pixels, mask by mask, from the left.

    The pixels of mask n are numbered from n * (`height` * `width` + 1), so that runs of two masks
    never touch.
    """
    x1, y1, x2, y2 = boxes_xyxy.unbind(1)
    left = (x1.floor() - 1).clamp(0.0, float(width)).long()
    right = torch.maximum((x2.ceil() + 1).clamp(0.0, float(width)).long(), left)
    masks, x = spread(left, (right - left) * ((x1 < x2) & (y1 < y2)))
    across = box_coordinates(x, x1.index_select(0, masks), x2.index_select(0, masks))
    # In grid cells, 0 at the first node inside the frame.
    cells = (across + 1.0) * (side / 2.0) - 0.5
    is_inside = (cells > -1.0) & (cells < float(side))
    if not bool(is_inside.all()):
        masks, x = masks.masked_select(is_inside), x.masked_select(is_inside)
        across, cells = across.masked_select(is_inside), cells.masked_select(is_inside)
    left_cells = cells.floor()
    lines = masks * (side + 2) + (left_cells.long() + 1)
    tops = masks * (height * width + 1) + x * height
    if boxes_xyxy.shape[0] * (height * width + 1) < (1 << 31):
        tops = tops.int()  # faster
    return _Columns(masks, across, lines, cells - left_cells, tops)


def _sections(
    columns: _Columns,
    cells: BoundaryCells,
    boxes_xyxy: Tensor,
    side: int,
    height: int,
    threshold: float,
    margin: float,
) -> _Sections:
    """Interpolate the probability at the upper and the lower side of each boundary cell that a
    column passes, and divide to find the rows between."""
    column, index = spread(
        cells.firsts.index_select(0, columns.lines), cells.counts.index_select(0, columns.lines)
    )
    shares = columns.shares.index_select(0, column)
    before = cells.upper_step.index_select(0, index).mul_(shares)
    before += cells.upper.index_select(0, index)
    after = cells.lower_step.index_select(0, index).mul_(shares)
    after += cells.lower.index_select(0, index)
    least, most = threshold - margin, threshold + margin
    is_near = ((before >= least) | (after >= least)) & ((before < most) | (after < most))
    near = torch.repeat_interleave(is_near.int())  # faster than `nonzero`
    column, index = column.index_select(0, near), index.index_select(0, near)
    before, after = before.index_select(0, near), after.index_select(0, near)
    rows = cells.rows.index_select(0, index)
    slope = after - before
    # Almost zero: all of the section is ambiguous.
    slope = torch.where(slope.abs() < 1e-12, 1e-12, slope)
    crossing, reach = (threshold - before) / slope, (margin / slope).abs_()
    _, top, _, bottom = boxes_xyxy.double().unbind(1)
    per_cell = (bottom - top) / side
    # The first node is on the frame.
    first_row = (top - 0.5 - 0.5 * per_cell).index_select(0, columns.masks).index_select(0, column)
    rows_per_cell = per_cell.index_select(0, columns.masks).index_select(0, column)
    # Summed in this order, a cell's lower side rounds like the next cell's upper side.
    start = (crossing - reach).clamp_(0.0, 1.0).add_(rows) * rows_per_cell + first_row
    end = (crossing + reach).clamp_(0.0, 1.0).add_(rows) * rows_per_cell + first_row
    start, end = start.ceil_().clamp_(0.0, float(height)), end.ceil_().clamp_(0.0, float(height))
    return _Sections(column, start.int(), end.int(), after >= threshold)


def _with_samples(
    probabilities: Tensor,
    boxes_xyxy: Tensor,
    columns: _Columns,
    sections: _Sections,
    threshold: float,
    most_points: int,
) -> tuple[Tensor, Tensor]:
    """The state of the pixels from certain pixels on, ambiguous ones by their samples.

    Returns:
        Int[E] pixel numbers, ascending, and Bool[E] whether the pixels from there on are set. The
        last of several states of the same pixel applies.
    """
    tops = columns.tops.index_select(0, sections.columns)
    pixels, is_set = tops + sections.end, sections.is_set
    lengths = sections.end - sections.start
    ambiguous = (lengths > 0).nonzero().view(-1)
    if ambiguous.numel() == 0:
        return pixels, is_set
    owners, rows = spread(
        sections.start.index_select(0, ambiguous), lengths.index_select(0, ambiguous)
    )
    owners = ambiguous.index_select(0, owners)
    column = sections.columns.index_select(0, owners)
    masks = columns.masks.index_select(0, column)
    _, y1, _, y2 = boxes_xyxy.index_select(0, masks).unbind(1)
    across = columns.across.index_select(0, column)
    points = torch.stack([across, box_coordinates(rows, y1, y2)], 1)
    sampled = sample(probabilities, masks, points, most_points) >= threshold
    # Inserted before the end of their section.
    repeated = torch.repeat_interleave(lengths + 1)
    places = owners + torch.arange(owners.numel())
    pixels, is_set = pixels.index_select(0, repeated), is_set.index_select(0, repeated)
    pixels.index_copy_(0, places, tops.index_select(0, owners) + rows)
    is_set.index_copy_(0, places, sampled)
    return pixels, is_set


def _changes(pixels: Tensor, is_set: Tensor) -> Tensor:
    """The numbers of the pixels at which the state changes, starting with unset.

    Args:
        pixels: Int[E] pixel numbers, ascending.
        is_set: Bool[E] the state of the pixels from there on; the last of several states of the
            same pixel applies.
    """
    is_change = is_set.clone()
    is_change[1:] = is_set[1:] != is_set[:-1]
    pixels = pixels.masked_select(is_change)
    if bool((pixels[1:] == pixels[:-1]).any()):
        # Two changes at the same pixel cancel each other.
        values, counts = torch.unique_consecutive(pixels, return_counts=True)
        pixels = values.masked_select((counts & 1) > 0)
    return pixels


def _bounds(changes: Tensor, count: int, stride: int) -> tuple[Tensor, Tensor]:
    """`Runs.bounds` of `count` masks, and Int64[N] their number in each mask."""
    firsts = (torch.arange(count + 1) * stride).to(changes.dtype)
    counts = torch.searchsorted(changes, firsts).diff()
    return (changes - torch.repeat_interleave(firsts[:-1], counts)).long(), counts
