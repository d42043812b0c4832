"""RoIAlign (He et al. 2017), RoIPool, and pooling from levels (`detectron2.modeling.poolers`)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from d2serve.model.heads_config import PoolerConfig
from d2serve.model.structures import image_indices
from d2serve.torchvision_ops import ROI_ALIGN, ROI_POOL

# Regions that are pooled at a time on a CPU, to bound the memory of their lists of samples.
MAX_REGIONS_CPU = 500
# A box of this size is pooled from the level of stride 2**CANONICAL_LEVEL.
CANONICAL_BOX_SIZE = 224
CANONICAL_LEVEL = 4


@dataclass(frozen=True)
class FeatureMaps:
    """Feature maps in the type and layout of RoIAlign, converted once for all poolers.

    Attributes:
        maps: for each level Float[N, C, H/s, W/s]; Float32 on a GPU.
        dtype: type of the layers, and of the pooled features.
    """

    maps: list[Tensor]
    dtype: torch.dtype

    @classmethod
    def for_pooling(cls, features: Sequence[Tensor]) -> "FeatureMaps":
        """Convert the backbone's Float[N, C, H/s, W/s] if needed."""
        dtype = features[0].dtype
        if features[0].device.type == "cpu":
            return cls(list(features), dtype)
        # torchvision's kernel does not support bfloat16, and copies channels_last maps every time.
        layout = torch.contiguous_format
        return cls([map_.to(torch.float32, memory_format=layout) for map_ in features], dtype)


class ROIPooler:
    """Pooling from several feature maps (equation 1 of the FPN paper, Lin et al. 2017)."""

    def __init__(self, config: PoolerConfig, strides: Sequence[int]) -> None:
        self.config = config
        self.strides = tuple(strides)
        self.first_level = int(math.log2(strides[0]))

    def __call__(
        self,
        features: FeatureMaps,
        boxes: Tensor,
        counts: Sequence[int],
        levels: Tensor | None = None,
    ) -> Tensor:
        """Pool all boxes of all images, each from the level for its size.

        Args:
            features: of the N images.
            boxes: Float32[P, 4] xyxy in input pixels, one image after the other.
            counts: number of boxes of each image.
            levels: Int64[P], index of the level of each box, in place of that for its size.

        Returns:
            Float[P, C, resolution, resolution].
        """
        rois = torch.cat((image_indices(counts, boxes.device)[:, None].to(boxes), boxes), dim=1)
        if len(self.strides) == 1:
            return self._pool(features, 0, rois)
        levels = self._levels(boxes) if levels is None else levels
        order = levels.argsort(stable=True)
        each = torch.arange(len(self.strides), device=levels.device)[:, None]
        by_level = order.split((levels == each).sum(dim=1).tolist())
        side = self.config.resolution
        pooled = torch.empty(
            (len(rois), features.maps[0].shape[1], side, side),
            dtype=features.dtype,
            device=rois.device,
            memory_format=torch.channels_last,
        )
        for level, chosen in enumerate(by_level):
            for chunk in split_regions(chosen):
                pooled.index_put_((chunk,), self._pool(features, level, rois[chunk]))
        return pooled

    def _pool(self, features: FeatureMaps, level: int, rois: Tensor) -> Tensor:
        maps, side, scale = features.maps[level], self.config.resolution, 1.0 / self.strides[level]
        if self.config.takes_maximum:
            pooled = roi_pool(maps, rois, side, scale)
        else:
            sampling_ratio, aligned = self.config.sampling_ratio, self.config.aligned
            pooled = roi_align(maps, rois, side, scale, sampling_ratio, aligned)
        return pooled.to(features.dtype)

    def _levels(self, boxes: Tensor) -> Tensor:
        """Int64[P]: index of the level of each box."""
        sizes = boxes[:, 2:] - boxes[:, :2]
        side = torch.sqrt(sizes[:, 0] * sizes[:, 1])
        levels = torch.floor(CANONICAL_LEVEL + torch.log2(side / CANONICAL_BOX_SIZE + 1e-8))
        last_level = self.first_level + len(self.strides) - 1
        return levels.clamp(self.first_level, last_level).long() - self.first_level


def roi_align(
    features: Tensor, rois: Tensor, side: int, scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """Pool regions of feature maps to Float[R, C, side, side], in the type of the maps.

    A GPU runs torchvision's kernel. A CPU computes each bin as a weighted sum of feature cells, on
    all threads, unlike torchvision's CPU kernel.

    Args:
        features: Float[N, C, H, W]; on a GPU Float32 or Float16. With bfloat16 the samples' weights
            are rounded too, their sums are not.
        rois: Float32[R, 5]: index of the image, then x1, y1, x2, y2 in input pixels.
        side: bins per direction.
        scale: feature cells per input pixel.
        sampling_ratio: samples per bin and direction; 0 for at most one per feature cell.
        aligned: whether coordinates are shifted by half a pixel (ROIAlignV2).
    """
    if features.device.type != "cpu":
        on_gpu: Tensor = ROI_ALIGN(features, rois, scale, side, side, sampling_ratio, aligned)
        return on_gpu
    parts = [
        _roi_align_cpu(features, chunk, side, scale, sampling_ratio, aligned)
        for chunk in split_regions(rois)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def roi_pool(features: Tensor, rois: Tensor, side: int, scale: float) -> Tensor:
    """Pool regions to the maxima Float[R, C, side, side] of their feature cells (Girshick 2015).

    Args:
        features: Float[N, C, H, W].
        rois: see `roi_align`.
        side: bins per direction.
        scale: feature cells per input pixel.
    """
    maps = features.float().contiguous()  # torchvision's kernels do not support bfloat16
    pooled: Tensor = ROI_POOL(maps, rois, scale, side, side)
    return pooled.to(features.dtype)


def split_regions(rows: Tensor) -> Sequence[Tensor]:
    """Split Tensor[R, ...] into chunks that `roi_align` pools at once."""
    return rows.split(MAX_REGIONS_CPU) if rows.device.type == "cpu" else (rows,)


@dataclass(frozen=True)
class _Spans:
    """The feature cells of R regions' P bins along one axis.

    first, count: Int64[R, P], first cell and number of cells; weights: Float32[R, P, K] of the
    cells, 0 from `count` on.
    """

    first: Tensor
    count: Tensor
    weights: Tensor


def _roi_align_cpu(
    features: Tensor, rois: Tensor, side: int, scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    images, channels, height, width = features.shape
    if len(rois) == 0:
        return features.new_zeros((0, channels, side, side))
    corners = rois[:, 1:] * scale - (0.5 if aligned else 0.0)
    starts, sizes = corners[:, :2], corners[:, 2:] - corners[:, :2]
    sizes = sizes if aligned else sizes.clamp(min=1.0)
    columns, rows = (
        _bin_spans(starts[:, axis], sizes[:, axis] / side, length, side, sampling_ratio)
        for axis, length in ((0, width), (1, height))
    )
    first_cells = rois[:, 0].long() * (height * width)
    cells, weights, offsets = _bin_cells(first_cells, rows, columns, width)
    # A row for each feature cell: a view of channels_last maps.
    table = features.permute(0, 2, 3, 1).reshape(images * height * width, channels)
    weights = weights.to(table.dtype)
    pooled = F.embedding_bag(cells, table, offsets, mode="sum", per_sample_weights=weights)
    return pooled.view(len(rois), side, side, channels).permute(0, 3, 1, 2)


def _bin_spans(
    starts: Tensor, steps: Tensor, length: int, side: int, sampling_ratio: int
) -> _Spans:
    """Cells and weights of each bin along one axis.

    A sample interpolates between two cells; a bin is the mean of its samples.

    Args:
        starts: Float32[R], starts of the regions, in cells.
        steps: Float32[R], lengths of their bins, in cells.
        length: cells of the feature map.
        side: bins per region.
        sampling_ratio: see `roi_align`.
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
    max_count = int(count.max())
    weights = steps.new_zeros((*first.shape, max_count))
    for cell, weight in ((low, share - upper_share), (high, upper_share)):
        # Samples beyond a region's own number have weight 0, and an arbitrary position.
        weights.scatter_add_(2, (cell - first[:, :, None]).clamp(max=max_count - 1), weight)
    return _Spans(first, count, weights)


def _bin_cells(
    first_cells: Tensor, rows: _Spans, columns: _Spans, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Cells that are summed up for all bins, one bin after the other.

    Args:
        first_cells: Int64[R], index of the first cell of each region's image.
        rows, columns: cells of the bins along both axes.
        width: cells per row of the feature map.

    Returns:
        Indices Int64[S] and weights Float32[S] of the cells, and Int64[R * P * P] the start of each
        bin in them.
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
