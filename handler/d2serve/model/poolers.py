"""RoIAlign (He et al. 2017) and pooling from pyramid levels (`detectron2.modeling.poolers`)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from d2serve.model.config import PoolerConfig
from d2serve.model.structures import image_indices
from d2serve.torchvision_ops import load_operators

OPERATORS = load_operators("_C", "torchvision", ["roi_align"])
# Bounds the memory of the lists of cells, whatever the regions' sizes.
REGIONS_AT_ONCE = 500


def roi_align(
    features: Tensor, rois: Tensor, side: int, scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """Float[R, C, side, side] of regions of feature maps, in the maps' type.

    Args:
        features: Float[N, C, H, W]; on a GPU Float32 or Float16. In bfloat16 the samples' weights
            are rounded too, sums are not.
        rois: Float32[R, 5]: the image's index, then x1, y1, x2, y2 in input pixels.
        side: bins of a region, in each direction.
        scale: feature cells per input pixel.
        sampling_ratio: samples of a bin, in each direction; 0 takes one for each cell or less.
        aligned: whether a pixel's centre is half a pixel from its corner.
    """
    if features.device.type != "cpu":
        on_gpu: Tensor = OPERATORS.roi_align(
            features, rois, scale, side, side, sampling_ratio, aligned
        )
        return on_gpu
    parts = [
        _pool_part(features, part, side, scale, sampling_ratio, aligned) for part in portions(rois)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def portions(rows: Tensor) -> Sequence[Tensor]:
    """Tensor[R, ...] in portions of which `roi_align` pools each at once."""
    return rows.split(REGIONS_AT_ONCE) if rows.device.type == "cpu" else (rows,)


@dataclass(frozen=True)
class _Spans:
    """For each of R regions and P bins, along one axis: from which cell on, how many, and with
    what weight it takes them.

    first, count: Int64[R, P]; weights: Float32[R, P, K], 0 from `count` on.
    """

    first: Tensor
    count: Tensor
    weights: Tensor


def _pool_part(
    features: Tensor, rois: Tensor, side: int, scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    images, channels, height, width = features.shape
    if len(rois) == 0:
        return features.new_zeros((0, channels, side, side))
    corners = rois[:, 1:] * scale - (0.5 if aligned else 0.0)
    starts, sizes = corners[:, :2], corners[:, 2:] - corners[:, :2]
    sizes = sizes if aligned else sizes.clamp(min=1.0)
    columns, rows = (
        _spans(starts[:, axis], sizes[:, axis] / side, length, side, sampling_ratio)
        for axis, length in ((0, width), (1, height))
    )
    first_cells = rois[:, 0].long() * (height * width)
    cells, weights, offsets = _cells(first_cells, rows, columns, width)
    # The table's rows lie one after another where the layout is channels_last.
    table = features.permute(0, 2, 3, 1).reshape(images * height * width, channels)
    weights = weights.to(table.dtype)
    pooled = F.embedding_bag(cells, table, offsets, mode="sum", per_sample_weights=weights)
    return pooled.view(len(rois), side, side, channels).permute(0, 3, 1, 2)


def _spans(starts: Tensor, steps: Tensor, length: int, side: int, sampling_ratio: int) -> _Spans:
    """The cells of a bin: each sample lies between two, and the bin is the samples' mean.

    Args:
        starts: Float32[R], where regions begin, in cells.
        steps: Float32[R], what a bin measures.
        length: cells of the feature map.
    """
    samples = steps.ceil() if sampling_ratio <= 0 else torch.full_like(steps, sampling_ratio)
    divisors = samples.clamp(min=1.0)
    bins = torch.arange(side, dtype=steps.dtype)
    sample = torch.arange(int(divisors.max()), dtype=steps.dtype)
    in_bin = (sample + 0.5) * steps[:, None] / divisors[:, None]
    positions = (starts[:, None] + bins * steps[:, None])[:, :, None] + in_bin[:, None]
    counts = (sample < samples[:, None])[:, None] & (positions >= -1) & (positions <= length)
    share = counts / divisors[:, None, None]
    positions = positions.clamp(0, length - 1)
    low = positions.floor()
    upper_share = (positions - low) * share
    low = low.long()
    high = (low + 1).clamp(max=length - 1)
    first = low[:, :, 0]
    last = high.gather(2, (divisors.long() - 1)[:, None, None].expand(-1, side, 1))[:, :, 0]
    count = last - first + 1
    widest = int(count.max())
    weights = steps.new_zeros((*first.shape, widest))
    for cell, weight in ((low, share - upper_share), (high, upper_share)):
        # Samples beyond a region's own have no weight, and may lie anywhere.
        weights.scatter_add_(2, (cell - first[:, :, None]).clamp(max=widest - 1), weight)
    return _Spans(first, count, weights)


def _cells(
    first_cells: Tensor, rows: _Spans, columns: _Spans, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The cells that all bins sum up, one bin after another: Int64[S] indices, Float32[S] weights
    and Int64[R * P * P], where each bin begins in them.

    Args:
        first_cells: Int64[R], the first cell of each region's image.
        width: cells of a row.
    """
    side = rows.first.shape[1]
    corner = first_cells[:, None, None] + rows.first[:, :, None] * width + columns.first[:, None]
    counts = (rows.count[:, :, None] * columns.count[:, None]).flatten()
    ends = counts.cumsum(0)
    offsets = ends - counts
    total = int(ends[-1])
    bins = torch.repeat_interleave(torch.arange(len(counts)), counts, output_size=total)
    per_row = columns.count[:, None].expand(-1, side, -1).reshape(-1)[bins]
    within = torch.arange(total) - offsets[bins]
    row = torch.div(within, per_row, rounding_mode="floor")
    column = within - row * per_row
    row_bins, column_bins = bins // side, bins // (side * side) * side + bins % side
    weights = (
        rows.weights.flatten()[row_bins * rows.weights.shape[2] + row]
        * columns.weights.flatten()[column_bins * columns.weights.shape[2] + column]
    )
    return corner.flatten()[bins] + row * width + column, weights, offsets


CANONICAL_BOX_SIZE = 224
CANONICAL_LEVEL = 4


@dataclass(frozen=True)
class Pyramid:
    """Feature maps as RoIAlign takes them, so that they are converted once for all poolers.

    Attributes:
        maps: per level Float[N, C, H/s, W/s], on a GPU Float32.
        dtype: what the layers compute in, and what is pooled comes as.
    """

    maps: list[Tensor]
    dtype: torch.dtype

    @classmethod
    def of(cls, features: Sequence[Tensor]) -> "Pyramid":
        """From Float[N, C, H/s, W/s] of the backbone's."""
        dtype = features[0].dtype
        if features[0].device.type == "cpu":
            return cls(list(features), dtype)
        # torchvision's kernel knows no bfloat16, and would itself undo channels_last, for each
        # pooler.
        layout = torch.contiguous_format
        return cls([map_.to(torch.float32, memory_format=layout) for map_ in features], dtype)


class ROIPooler:
    """RoIAlign over several feature maps (He et al. 2017; equation 1 of the FPN paper)."""

    def __init__(self, config: PoolerConfig, strides: Sequence[int]) -> None:
        self.config = config
        self.strides = tuple(strides)
        self.first_level = int(math.log2(strides[0]))

    def __call__(self, pyramid: Pyramid, boxes: Tensor, counts: Sequence[int]) -> Tensor:
        """Pools all boxes of all images.

        Args:
            pyramid: of the N images.
            boxes: Float32[P, 4] xyxy in input pixels, one image after the other.
            counts: how many of the P each image has.

        Returns:
            Float[P, C, resolution, resolution].
        """
        rois = torch.cat((image_indices(counts, boxes.device)[:, None].to(boxes), boxes), dim=1)
        if len(self.strides) == 1:
            return self._pool(pyramid, 0, rois)
        levels = self._levels(boxes)
        order = levels.argsort(stable=True)
        each = torch.arange(len(self.strides), device=levels.device)[:, None]
        on_levels = order.split((levels == each).sum(dim=1).tolist())
        side = self.config.resolution
        pooled = torch.empty(
            (len(rois), pyramid.maps[0].shape[1], side, side),
            dtype=pyramid.dtype,
            device=rois.device,
            memory_format=torch.channels_last,
        )
        for level, chosen in enumerate(on_levels):
            for some in portions(chosen):
                pooled.index_put_((some,), self._pool(pyramid, level, rois[some]))
        return pooled

    def _pool(self, pyramid: Pyramid, level: int, rois: Tensor) -> Tensor:
        pooled = roi_align(
            pyramid.maps[level],
            rois,
            self.config.resolution,
            1.0 / self.strides[level],
            self.config.sampling_ratio,
            self.config.aligned,
        )
        return pooled.to(pyramid.dtype)

    def _levels(self, boxes: Tensor) -> Tensor:
        sizes = boxes[:, 2:] - boxes[:, :2]
        side = torch.sqrt(sizes[:, 0] * sizes[:, 1])
        levels = torch.floor(CANONICAL_LEVEL + torch.log2(side / CANONICAL_BOX_SIZE + 1e-8))
        last_level = self.first_level + len(self.strides) - 1
        return levels.clamp(self.first_level, last_level).long() - self.first_level
