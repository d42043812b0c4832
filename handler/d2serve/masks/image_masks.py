"""Full-image logits -> runs of set pixels, without the dense masks of all instances."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from d2serve.masks.resampling import Resampling
from d2serve.masks.runs import Runs
from d2serve.masks.windows import order_of_roundings, threshold_windows

# torch scales to images of at most this height + width by another function, which computes several
# masks together. At least this number of masks keeps its order of operations.
SMALL_IMAGE, MASKS_TOGETHER = 128, 16
# Values that are scaled together otherwise.
MOST_VALUES = 1 << 24


@dataclass(frozen=True)
class ImageMasks:
    """Masks of one image.

    Attributes:
        runs: the set pixels of N masks.
        probabilities: Float64[N] mean of the set pixels' probabilities, in 0..1; 0 for an empty
            mask.
    """

    runs: Runs
    probabilities: npt.NDArray[np.float64]


def threshold_logits(logits: Tensor, resampling: Resampling, threshold: float = 0.0) -> ImageMasks:
    """Scale masks to the original image; pixels above the threshold are set.

    Bit for bit the pixels of torch's `interpolate` in two steps on the same device. On a CPU, each
    mask is scaled around the nodes above the threshold in both steps at once. Ambiguous pixels,
    which are so close to the threshold that rounding decides, are computed again in two steps with
    exactly torch's roundings.

    Args:
        logits: Float[N, h, w]; NaN is not set.
        resampling: from h x w to the original image.
        threshold: a pixel of this value is not set.
    """
    values = logits.float()
    order = order_of_roundings() if values.device.type == "cpu" else None
    smallest = min(sum(resampling.padded_hw), sum(resampling.original_hw))
    if order is None or smallest <= SMALL_IMAGE:
        bounds, counts, sums = _threshold_densely(values, resampling, threshold)
    else:
        bounds, counts, sums = threshold_windows(values, resampling, threshold, order)
    offsets = np.concatenate(([0], np.cumsum(counts.numpy())))
    runs = Runs(bounds.numpy(), offsets, resampling.original_hw)
    return ImageMasks(runs, sums.numpy() / (runs.areas() + 1e-6))


def _threshold_densely(
    logits: Tensor, resampling: Resampling, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """See `threshold_windows`; on any device."""
    largest = max(
        height * width for height, width in (resampling.padded_hw, resampling.original_hw)
    )
    together = max(1, MOST_VALUES // (largest * MASKS_TOGETHER)) * MASKS_TOGETHER
    bounds, counts, sums = [torch.zeros(0).long()], [torch.zeros(0).long()], [torch.zeros(0)]
    for some in logits.split(together):
        scaled = resampling.dense(some)
        is_set = scaled > threshold
        sums.append((scaled.sigmoid_() * is_set).sum((1, 2)).cpu())
        outside = is_set.new_zeros((len(some), 1))
        states = torch.cat((outside, is_set.transpose(1, 2).flatten(1), outside), dim=1)
        changes = (states[:, 1:] != states[:, :-1]).nonzero().cpu()
        bounds.append(changes[:, 1])
        counts.append(torch.bincount(changes[:, 0], minlength=len(some)))
    return torch.cat(bounds), torch.cat(counts), torch.cat(sums).double()
