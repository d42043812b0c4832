"""Mask probabilities over boxes -> changes of the pixels' state, by the boundary crossings of
columns.

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


def changes_by_columns(
    probabilities: Floats,
    boxes_xyxy: Floats,
    size_hw: tuple[int, int],
    threshold: float,
    margin: float,
    masks_together: int,
) -> npt.NDArray[np.signedinteger]:
    """Paste masks, without the interpreter lock; returns Int[C] changes for `Runs.of_changes`.

    Args:
        probabilities: Float32[N, M, M] in 0..1 over the boxes' extents.
        boxes_xyxy: Float32[N, 4] in pixels; a box without area has no pixels.
        size_hw: height and width of the image.
        threshold: minimum probability of a set pixel.
        margin: distance to the threshold within which rounding may decide.
        masks_together: number of masks that are pasted together, 1 or more.
    """
    height, width = size_hw
    stride = height * width + 1
    changes: list[npt.NDArray[np.signedinteger]] = [np.zeros(0, np.int32)]
    for first in range(0, len(probabilities), masks_together):
        some = probabilities[first : first + masks_together]
        boxes = torch.from_numpy(boxes_xyxy[first : first + masks_together])
        cells = boundary_cells(some, threshold - margin, threshold + margin)
        given = (torch.from_numpy(some), boxes, cells, height, width, threshold, margin)
        own: npt.NDArray[np.signedinteger] = _changes(*given, MOST_POINTS).numpy()
        changes.append(np.add(own, first * stride, dtype=np.int64) if first else own)
    return np.concatenate(changes)


class _Columns(NamedTuple):
    """The pixel columns that pass each of B boundary cells.

    Attributes:
        masks: Int64[B] index of the mask, ascending.
        left: Int64[B] x of the first column.
        counts: Float32[B] number of columns.
        gaps: Float32[2, B] distance from the left side to the first column, and from the last
            column to the right side, in cells.
        steps: Float32[B] distance from one column to the next, in cells.
    """

    masks: Tensor
    left: Tensor
    counts: Tensor
    gaps: Tensor
    steps: Tensor


class _Sections(NamedTuple):
    """J sections of columns, each within one boundary cell.

    Attributes:
        cells: Int64[J] index of the cell, ascending.
        columns: Int32[J] index of the column among those of the cell's line.
        start: Int32[J] the first row that rounding may decide.
        end: Int32[J] the first row after those.
        is_set_before: Bool[J] the state above `start`.
        is_set_after: Bool[J] the state from `end` on.
    """

    cells: Tensor
    columns: Tensor
    start: Tensor
    end: Tensor
    is_set_before: Tensor
    is_set_after: Tensor


@unlocked
def _changes(
    probabilities: Tensor,
    boxes_xyxy: Tensor,
    cells: BoundaryCells,
    height: int,
    width: int,
    threshold: float,
    margin: float,
    most_points: int,
) -> Tensor:
    count, side, stride = probabilities.shape[0], probabilities.shape[2], height * width + 1
    dtype = torch.int32 if count * stride < (1 << 31) else torch.int64  # the shorter is faster
    columns = _columns(boxes_xyxy, cells, side, width)
    sections = _sections(columns, cells, boxes_xyxy, side, height, threshold, margin)
    tops = (columns.masks * stride + columns.left * height).to(dtype)
    tops = tops.index_select(0, sections.cells) + sections.columns * height
    is_change = sections.is_set_before != sections.is_set_after
    # Ambiguous pixels are in the state above them, unless their samples differ.
    owners, rows = _differing(probabilities, boxes_xyxy, columns, sections, threshold, most_points)
    differing = tops.index_select(0, owners) + rows
    return torch.cat([(tops + sections.end).masked_select(is_change), differing, differing + 1])


def _columns(boxes_xyxy: Tensor, cells: BoundaryCells, side: int, width: int) -> _Columns:
    """The columns at or right of each cell's left line of grid nodes and left of the next line."""
    boxes = boxes_xyxy.double().unsqueeze(2)
    extents = boxes[:, 2:] - boxes[:, :2]
    has_area = ((extents > 0) & (extents < float("inf"))).all(1)
    x1, x2 = torch.where(has_area, boxes[:, 0], 0.0), torch.where(has_area, boxes[:, 2], 1.0)
    cell = (x2 - x1) / side
    # The first line is on the frame, half a cell outside the box.
    positions = (torch.arange(side + 3) - 0.5) * cell + (x1 - 0.5)
    least = (x1.floor() - 1).clamp(0.0, float(width))
    most = (x2.ceil() + 1).clamp(0.0, float(width))
    firsts = torch.minimum(torch.maximum(positions.ceil(), least), most)
    left, end = firsts[:, :-1], firsts[:, 1:]
    of_lines = [
        (end - left) * has_area,
        (left - positions[:, :-1]) / cell,
        (positions[:, 1:] - end + 1) / cell,
        (1 / cell).clamp(max=1e30).expand_as(left),
    ]
    numbers = torch.stack(of_lines).flatten(1).float().index_select(1, cells.lines)
    left = left.flatten().index_select(0, cells.lines).long()
    return _Columns(cells.masks, left, numbers[0], numbers[1:3], numbers[3])


def _sections(
    columns: _Columns,
    cells: BoundaryCells,
    boxes_xyxy: Tensor,
    side: int,
    height: int,
    threshold: float,
    margin: float,
) -> _Sections:
    """Interpolate the probability at the upper and the lower side of each boundary cell, where a
    column passes it, and divide to find the rows between."""
    # Twice the margin, because this is rounded too.
    clear = _clear_shares(cells.corners, threshold, 2 * margin)
    first, others = ((clear - columns.gaps) / columns.steps).ceil_().clamp_(min=0.0).unbind()
    remaining = (columns.counts - first - others).clamp_(min=0.0)
    owners, numbers = spread(first.int(), remaining.int())
    x = numbers.float()
    left, right = cells.corners.unbind()
    sides, steps = left + (right - left) * columns.gaps[0], (right - left) * columns.steps
    # The lower side of a cell is computed like the upper side of the next one.
    above = (steps[0].index_select(0, owners) * x).add_(sides[0].index_select(0, owners))
    below = (steps[1].index_select(0, owners) * x).add_(sides[1].index_select(0, owners))
    # Where both are equal, all rows are ambiguous, or none.
    slope = (below - above).add_(1e-30)
    crossings = (threshold - margin - above).div_(slope), (threshold + margin - above).div_(slope)
    in_cell = torch.stack([torch.minimum(*crossings), torch.maximum(*crossings)]).clamp_(0.0, 1.0)
    _, y1, _, y2 = boxes_xyxy.double().unbind(1)
    cell = (y2 - y1) / side
    # The first node is on the frame.
    top = (y1 - 0.5 - 0.5 * cell).index_select(0, columns.masks).index_select(0, owners)
    cell = cell.index_select(0, columns.masks).index_select(0, owners)
    # Summed in this order, a cell's lower side rounds like the next cell's upper side.
    rows = in_cell.add_(cells.rows.index_select(0, owners)).double().mul_(cell).add_(top)
    start, end = rows.ceil_().clamp_(0.0, float(height)).int().unbind()
    return _Sections(owners, numbers, start, end, above >= threshold, below >= threshold)


def _clear_shares(corners: Tensor, threshold: float, margin: float) -> Tensor:
    """Float32[2, B]: the share of each cell's width, from the left and from the right, in which the
    probabilities are on the same side of the threshold, at more than the margin.

    Args:
        corners: Float32[2, 2, B], see `BoundaryCells`.
        threshold: minimum probability of a set pixel.
        margin: distance to the threshold.
    """
    heights = corners - threshold
    sign = heights[:, :1].sign()
    falls = ((corners - corners.flip(0)) * sign).clamp_(min=1e-12)
    upper, lower = (heights * sign).sub_(margin).div_(falls).unbind(1)
    return torch.minimum(upper, lower).clamp_(0.0, 1.0)


def _differing(
    probabilities: Tensor,
    boxes_xyxy: Tensor,
    columns: _Columns,
    sections: _Sections,
    threshold: float,
    most_points: int,
) -> tuple[Tensor, Tensor]:
    """Int64[D] sections and Int32[D] rows of the ambiguous pixels whose state is not the one above
    their section."""
    ambiguous = (sections.end - sections.start).nonzero().view(-1)
    starts = sections.start.index_select(0, ambiguous)
    owners, rows = spread(starts, sections.end.index_select(0, ambiguous) - starts)
    owners = ambiguous.index_select(0, owners)
    cells = sections.cells.index_select(0, owners)
    x = columns.left.index_select(0, cells) + sections.columns.index_select(0, owners)
    masks = columns.masks.index_select(0, cells)
    x1, y1, x2, y2 = boxes_xyxy.index_select(0, masks).unbind(1)
    points = torch.stack([box_coordinates(x, x1, x2), box_coordinates(rows, y1, y2)], 1)
    is_set = sample(probabilities, masks, points, most_points) >= threshold
    differs = is_set != sections.is_set_before.index_select(0, owners)
    return owners.masked_select(differs), rows.masked_select(differs)
