"""Deformable attention over several feature maps (Zhu et al. 2021, Deformable DETR).

Each query samples a few points of each map bilinearly and adds them up with predicted weights.
torch's `embedding_bag` computes such weighted sums of rows: on a CPU more than ten times as fast as
`grid_sample`, because it reads a cell's channels at once and keeps no sample.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.linear import FullPrecisionLinear, Linear, linear_from

POINTS = 4
# Queries at a time on a CPU: what they sample and compute stays in its caches.
CHUNK = 2048
SizeHW = tuple[int, int]


@dataclass(frozen=True)
class SampledMaps:
    """Constants of the feature maps' sizes; a column for each of the S samples of a query: the
    points of each level of each head.

    Attributes:
        width, height: Float32[S] of each map, in cells.
        last_x, last_y: Float32[S] the last cell that has a neighbour, at least 0.
        reach_x, reach_y: Float32[S] the distance, 1, at which the neighbour counts no more; 0
            without a neighbour.
        first: Int32[S] the row of each map's first value.
        step_x, step_y: Int32[S] the number of rows to the right and to the lower neighbour.
    """

    width: Tensor
    height: Tensor
    last_x: Tensor
    last_y: Tensor
    reach_x: Tensor
    reach_y: Tensor
    first: Tensor
    step_x: Tensor
    step_y: Tensor


@dataclass(frozen=True)
class SamplingGrid:
    """Positions of queries at all cells of all maps.

    Attributes:
        maps: the maps that are sampled.
        x, y: Float32[queries, S] the position of each query in the map, in cells, 0 at the centre
            of the first.
    """

    maps: SampledMaps
    x: Tensor
    y: Tensor

    def chunks(self) -> Iterator[slice]:
        """The queries in ranges that are processed together."""
        count = len(self.x)
        size = CHUNK if self.x.device.type == "cpu" else count
        return (slice(start, min(start + size, count)) for start in range(0, count, size))


def sampled_maps(sizes_hw: Sequence[SizeHW], heads: int, device: torch.device) -> SampledMaps:
    """Compute the constants of maps of these sizes."""
    sizes = torch.tensor(sizes_hw, device=device)
    heights, widths = sizes.unbind(1)
    cells = heights * widths
    starts = cells.cumsum(0) - cells
    head = torch.arange(heads, device=device).repeat_interleave(len(sizes_hw) * POINTS)

    def columns(per_level: Tensor) -> Tensor:
        return per_level.repeat_interleave(POINTS).repeat(heads)

    return SampledMaps(
        width=columns(widths).float(),
        height=columns(heights).float(),
        last_x=columns(widths - 2).clamp(min=0).float(),
        last_y=columns(heights - 2).clamp(min=0).float(),
        reach_x=columns(widths > 1).float(),
        reach_y=columns(heights > 1).float(),
        first=(columns(starts) * heads + head).int(),
        step_x=(columns(widths > 1) * heads).int(),
        step_y=(columns((heights > 1) * widths) * heads).int(),
    )


def sampling_grid(sizes_hw: Sequence[SizeHW], heads: int, device: torch.device) -> SamplingGrid:
    """Compute the positions of queries at all cells of maps of these sizes."""
    maps = sampled_maps(sizes_hw, heads, device)
    # Positions as a share of each map, which all maps have in common.
    shares = [_centres(size_hw, device) for size_hw in sizes_hw]
    y, x = torch.cat(shares).unbind(1)
    return SamplingGrid(maps, x=x[:, None] * maps.width - 0.5, y=y[:, None] * maps.height - 0.5)


def _centres(size_hw: SizeHW, device: torch.device) -> Tensor:
    """Float32[H * W, 2] y and x of the cells' centres, 0..1."""
    y, x = ((torch.arange(size, device=device) + 0.5) / size for size in size_hw)
    return torch.cartesian_prod(y, x)


class MSDeformAttn(nn.Module):
    """Samples values at predicted offsets from each query's own position or box."""

    def __init__(self, dim: int, levels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        samples = heads * levels * POINTS
        self.sampling_offsets = Linear(dim, 2 * samples)
        self.attention_weights = Linear(dim, samples)
        self.value_proj = Linear(dim, dim)
        self.output_proj = Linear(dim, dim)

    def join(self) -> "JoinedDeformAttn":
        """The same attention with one layer for offsets and weights."""
        offsets, weights = self.sampling_offsets, self.attention_weights
        # x and y of each sample alternate.
        order = (slice(0, None, 2), slice(1, None, 2))
        sampling = linear_from(
            FullPrecisionLinear,
            torch.cat([*(offsets.weight[part] for part in order), weights.weight]),
            torch.cat([*(offsets.bias[part] for part in order), weights.bias]),
        )
        return JoinedDeformAttn(self.heads, sampling, self.value_proj, self.output_proj)


class JoinedDeformAttn(nn.Module):
    """Replaces an `MSDeformAttn`.

    Offsets, sampling positions and sums are float32 in any case.
    """

    def __init__(
        self, heads: int, sampling: FullPrecisionLinear, value_proj: Linear, output_proj: Linear
    ) -> None:
        super().__init__()
        self.heads = heads
        self.sampling = sampling
        self.value_proj, self.output_proj = value_proj, output_proj

    def join(self) -> "JoinedDeformAttn":
        """Return the attention itself."""
        return self

    def values(self, cells: Tensor) -> Tensor:
        """Float[cells, C] of all maps -> the rows to sample, Float32[cells * heads, C / heads]."""
        rows: Tensor = self.value_proj(cells)
        return rows.float().view(len(cells) * self.heads, -1)

    def forward(self, query: Tensor, rows: Tensor, grid: SamplingGrid, chunk: slice) -> Tensor:
        """Attend from some queries.

        Args:
            query: Float[Q, C] with positions added.
            rows: see `values`.
            grid: of the maps.
            chunk: the queries among all queries of the grid.

        Returns:
            Float[Q, C].
        """
        x, y, logits = self.sampling(query).chunk(3, dim=1)
        return self._attend(x + grid.x[chunk], y + grid.y[chunk], logits, rows, grid.maps)

    def at_boxes(self, query: Tensor, boxes: Tensor, rows: Tensor, maps: SampledMaps) -> Tensor:
        """Attend from queries with boxes: offsets are relative to a box's centre and size.

        Args:
            query: Float[Q, C] with positions added.
            boxes: Float32[Q, 4] centre x and y, width and height as shares of the maps' extent.
            rows: see `values`.
            maps: the maps.

        Returns:
            Float[Q, C].
        """
        x, y, logits = self.sampling(query).chunk(3, dim=1)
        centre_x, centre_y, width, height = boxes[:, :, None].unbind(1)
        x = (centre_x + x * (width / (2 * POINTS))) * maps.width - 0.5
        y = (centre_y + y * (height / (2 * POINTS))) * maps.height - 0.5
        return self._attend(x, y, logits, rows, maps)

    def _attend(
        self, x: Tensor, y: Tensor, logits: Tensor, rows: Tensor, maps: SampledMaps
    ) -> Tensor:
        samples = logits.shape[1] // self.heads
        weights = _softmax(logits.unflatten(1, (self.heads, samples))).flatten(1)
        sums = _sample(rows, x, y, weights, maps, samples)
        output: Tensor = self.output_proj(
            sums.view(len(logits), -1).to(self.output_proj.weight.dtype)
        )
        return output


def _softmax(logits: Tensor) -> Tensor:
    """Softmax over the last dimension, faster on a CPU than torch's where it is short."""
    weights = (logits - logits.amax(dim=-1, keepdim=True)).exp_()
    return weights.div_(weights.sum(dim=-1, keepdim=True))


def _sample(
    rows: Tensor, x: Tensor, y: Tensor, weights: Tensor, maps: SampledMaps, samples: int
) -> Tensor:
    """Add up bilinear samples, zero outside of the maps.

    Args:
        rows: Float32[cells * heads, D].
        x, y: Float32[Q, heads * samples] positions in cells; overwritten.
        weights: Float32[Q, heads * samples].
        maps: the maps.
        samples: number of samples that are added up.

    Returns:
        Float32[Q * heads, D].
    """
    left, left_weights, right_weights = _split(x, maps.last_x, maps.reach_x)
    above, above_weights, below_weights = _split(y, maps.last_y, maps.reach_y)
    above_weights *= weights
    below_weights *= weights
    indices = left.int().mul_(maps.step_x).add_(above.int().mul_(maps.step_y)).add_(maps.first)

    def add_up(indices: Tensor, weights: Tensor) -> Tensor:
        return F.embedding_bag(
            indices.view(-1, samples),
            rows,
            mode="sum",
            per_sample_weights=weights.view(-1, samples),
        )

    sums = add_up(indices, left_weights * above_weights)
    sums += add_up(indices + maps.step_x, right_weights * above_weights)
    indices += maps.step_y
    sums += add_up(indices, left_weights * below_weights)
    indices += maps.step_x
    sums += add_up(indices, right_weights * below_weights)
    return sums


def _split(positions: Tensor, last: Tensor, reach: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first of two cells for each position, and the weights of both.

    The pair is inside of the map in any case. A cell's weight is one minus its distance, so cells
    that are not next to the position have none.
    """
    first = torch.minimum(positions.floor().clamp_(min=0), last)
    distances = positions.sub_(first)
    second_weights = torch.sub(distances, 1).abs_()
    second_weights = torch.sub(reach, second_weights).clamp_(min=0)
    first_weights = distances.abs_().neg_().add_(1).clamp_(min=0)
    return first, first_weights, second_weights
