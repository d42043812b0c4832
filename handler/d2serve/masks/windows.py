"""Masks from logits on a CPU: each is scaled only around the nodes above the threshold.

The functions of tensors are compiled by TorchScript, see `unlocked`.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from d2serve.masks.resampling import LinearStep, ResampledAxis, Resampling
from d2serve.masks.unlocked import unlocked

# Largest rounding error of a resampled value per largest logit: about 20 roundings.
MARGIN = 4e-6
# Values that are computed together, few enough for a processor's cache.
MOST_VALUES = 1 << 17
# Order of the roundings of a * x + b * y: both products and the sum, or one product and a fused
# multiplication and addition.
ORDERS = (PLAIN, FUSED_WITH_FIRST, FUSED_WITH_SECOND) = (0, 1, 2)


class Window(NamedTuple):
    """The rows `top` to `bottom` - 1 and columns `left` to `right` - 1 of an image."""

    top: int
    bottom: int
    left: int
    right: int


def threshold_windows(
    logits: Tensor, resampling: Resampling, threshold: float, order: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Scale masks to the original image, without the interpreter lock.

    Args:
        logits: Float32[N, h, w] on the CPU.
        resampling: from h x w to the original image.
        threshold: a pixel of this value is not set.
        order: one of ORDERS.

    Returns:
        `Runs.bounds`, Int64[N] their number in each mask, and Float64[N] sums of the logistic
        function of the set pixels' values.
    """
    vertical, horizontal = resampling.axes()
    return _threshold(logits, vertical, horizontal, threshold, MARGIN, order, MOST_VALUES)


@cache
def order_of_roundings() -> int | None:
    """The order in which torch's `interpolate` rounds on this processor; None if not known."""
    values = torch.randn((1, 24, 31), generator=torch.Generator().manual_seed(0))
    resampling = Resampling((24, 31), (96, 124), (91, 117), (70, 83))
    vertical, horizontal = resampling.axes()
    rows, columns = (
        each.flatten() for each in torch.meshgrid(torch.arange(70), torch.arange(83), indexing="ij")
    )
    expected = resampling.dense(values).flatten()
    for order in ORDERS:
        if torch.equal(
            _in_two_steps(values[0], rows, columns, vertical, horizontal, order), expected
        ):
            return order
    return None


@unlocked
def _threshold(
    logits: Tensor,
    vertical: ResampledAxis,
    horizontal: ResampledAxis,
    threshold: float,
    margin: float,
    order: int,
    most_values: int,
) -> tuple[Tensor, Tensor, Tensor]:
    bounds, counts, sums = [torch.zeros([0]).long()], [0], [0.0]
    for index in range(logits.shape[0]):
        nodes = logits[index]
        own_margin = margin * float(nodes.abs().max())
        # Nodes and pixels of NaN count as near, and are then computed exactly.
        is_near = (nodes <= threshold - own_margin).logical_not_()
        top, bottom = _dependent_pixels(is_near.any(1), vertical)
        left, right = _dependent_pixels(is_near.any(0), horizontal)
        window = Window(top, bottom, left, right)
        own, total = _mask(
            nodes, vertical, horizontal, window, threshold, own_margin, order, most_values
        )
        bounds.append(own)
        counts.append(own.numel())
        sums.append(total)
    return (
        torch.cat(bounds),
        torch.tensor(counts[1:], dtype=torch.int64),
        torch.tensor(sums[1:], dtype=torch.float64),
    )


def _dependent_pixels(is_near: Tensor, axis: ResampledAxis) -> tuple[int, int]:
    """The first pixel that depends on one of Bool[M] nodes, and the end of those pixels."""
    nodes = is_near.nonzero()
    if nodes.numel() == 0:
        return 0, 0
    first = torch.searchsorted(axis.highest, nodes[0])
    end = torch.searchsorted(axis.lowest, nodes[-1], right=True)
    return int(first), int(end)


def _mask(
    nodes: Tensor,
    vertical: ResampledAxis,
    horizontal: ResampledAxis,
    window: Window,
    threshold: float,
    margin: float,
    order: int,
    most_values: int,
) -> tuple[Tensor, float]:
    """The bounds of a mask without set pixels outside the window, and its sum."""
    top, bottom, left, right = window.top, window.bottom, window.left, window.right
    height, total = bottom - top, 0.0
    if height <= 0 or right <= left:
        return torch.zeros([0]).long(), total
    lowest, end = int(vertical.lowest[top]), int(vertical.highest[bottom - 1]) + 1
    down = torch.mm(nodes[lowest:end].t(), vertical.weights[top:bottom, lowest:end].t())
    # An unset pixel separates the columns, unless a run can continue in the next one.
    stride = height if height == vertical.lowest.numel() else height + 1
    is_set = torch.zeros([right - left, stride], dtype=torch.bool)
    step = max(1, most_values // height)
    for start in range(left, right, step):
        stop = min(start + step, right)
        lowest, end = int(horizontal.lowest[start]), int(horizontal.highest[stop - 1]) + 1
        values = torch.mm(horizontal.weights[start:stop, lowest:end], down[lowest:end])
        ambiguous = ((values - threshold).abs_() > margin).logical_not_().nonzero()
        if ambiguous.numel() > 0:
            columns, rows = ambiguous.unbind(1)
            exact = _in_two_steps(nodes, rows + top, columns + start, vertical, horizontal, order)
            values.index_put_([columns, rows], exact)
        above = values > threshold
        is_set[start - left : stop - left, :height] = above
        total += float(values.masked_select(above).sigmoid_().sum())
    return _bounds(is_set, window, vertical.lowest.numel()), total


def _bounds(is_set: Tensor, window: Window, image_height: int) -> Tensor:
    """`Runs.bounds` from Bool[columns, rows] of a window, whose last row may be empty."""
    states = torch.zeros([is_set.numel() + 2], dtype=torch.bool)
    states[1:-1] = is_set.view(-1)
    changes = (states[1:] != states[:-1]).nonzero().view(-1)
    columns = torch.div(changes, is_set.shape[1], rounding_mode="floor")
    rows = changes - columns * is_set.shape[1]
    return (columns + window.left) * image_height + rows + window.top


def _in_two_steps(
    nodes: Tensor,
    rows: Tensor,
    columns: Tensor,
    vertical: ResampledAxis,
    horizontal: ResampledAxis,
    order: int,
) -> Tensor:
    """Float32[K]: the pixels at Int64[K] rows and columns, rounded as `interpolate` does."""
    down, across = _at(vertical.second, rows), _at(horizontal.second, columns)
    upper_left = _in_one_step(nodes, down.below, across.below, vertical, horizontal, order)
    upper_right = _in_one_step(nodes, down.below, across.above, vertical, horizontal, order)
    lower_left = _in_one_step(nodes, down.above, across.below, vertical, horizontal, order)
    lower_right = _in_one_step(nodes, down.above, across.above, vertical, horizontal, order)
    upper, lower = (
        _mix(upper_left, upper_right, across, order),
        _mix(lower_left, lower_right, across, order),
    )
    return _mix(upper, lower, down, order)


def _in_one_step(
    nodes: Tensor,
    rows: Tensor,
    columns: Tensor,
    vertical: ResampledAxis,
    horizontal: ResampledAxis,
    order: int,
) -> Tensor:
    """Float32[K]: the pixels of the resized image at Int64[K] rows and columns."""
    down, across = _at(vertical.first, rows), _at(horizontal.first, columns)
    upper = _mix(nodes[down.below, across.below], nodes[down.below, across.above], across, order)
    lower = _mix(nodes[down.above, across.below], nodes[down.above, across.above], across, order)
    return _mix(upper, lower, down, order)


def _at(step: LinearStep, places: Tensor) -> LinearStep:
    return LinearStep(
        step.below.index_select(0, places),
        step.above.index_select(0, places),
        step.weight_below.index_select(0, places),
        step.weight_above.index_select(0, places),
    )


def _mix(below: Tensor, above: Tensor, step: LinearStep, order: int) -> Tensor:
    """Float32[K]: weighted sums. Products of float32 numbers are exact in float64."""
    if order == 0:
        return below * step.weight_below + above * step.weight_above
    if order == 1:
        rounded = (above * step.weight_above).double()
        return (below.double() * step.weight_below.double() + rounded).float()
    rounded = (below * step.weight_below).double()
    return (above.double() * step.weight_above.double() + rounded).float()
