"""The stem of a ResNet on a CPU: convolution and pooling in strips.

The convolution's output is the largest feature map of a network. A strip of it stays in the CPU's
caches until it is pooled.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Bytes of the convolution's output in a step.
STEP_BYTES = 4 << 20


def without_row_padding(convolution: nn.Conv2d) -> nn.Conv2d:
    """A convolution with the same weights."""
    columns = copy.copy(convolution)
    columns.padding = (0, int(convolution.padding[1]))
    return columns


class PackedStem(nn.Module):
    """Replaces a `Stem` whose norm is folded.

    Args:
        convolution: the stem's, with its ReLU, without padding above and below.
        padding: rows of zeros above and below the images.
        channels: of the output.
    """

    def __init__(self, convolution: nn.Module, padding: int, channels: int) -> None:
        super().__init__()
        self.conv1, self.padding, self.channels = convolution, padding, channels

    def forward(self, images: Tensor) -> Tensor:
        """Float[N, in_channels, H, W] -> Float[N, C, H/4, W/4], channels last."""
        count, _, height, width = images.shape
        high, wide = -(-height // 2), -(-width // 2)
        output = images.new_empty(count, -(-high // 2), -(-wide // 2), self.channels)
        padded = F.pad(images, (0, 0, self.padding, self.padding))
        step = max(1, STEP_BYTES // (2 * count * wide * self.channels * images.element_size()))
        for top in range(0, output.shape[1], step):
            target = output[:, top : top + step]
            # Rows of the convolution: the one above, and two for each row of the target.
            first, last = max(0, 2 * top - 1), min(high, 2 * (top + target.shape[1]))
            rows = self.conv1(padded[:, :, 2 * first : 2 * (last + self.padding) - 1])
            halve(_halve_rows(rows.permute(0, 2, 3, 1), top > 0), 2, target)
        return output.permute(0, 3, 1, 2)


def _halve_rows(features: Tensor, has_row_above: bool) -> Tensor:
    output = halve(features[:, has_row_above:], 1)
    if has_row_above:
        torch.maximum(output[:, 0], features[:, 0], out=output[:, 0])
    return output


def halve(values: Tensor, axis: int, output: Tensor | None = None) -> Tensor:
    """The maximum of each second value along an axis and its neighbors, for values of at least 0.

    Args:
        values: n values along the axis.
        axis: of `values`.
        output: ceil(n / 2) values along the axis, which are written.
    """
    if values.shape[axis] % 2:
        values = F.pad(values, (0, 0) * (values.ndim - 1 - axis) + (0, 1))
    even, odd = values.unflatten(axis, (-1, 2)).unbind(axis + 1)
    output = torch.maximum(even, odd, out=output)
    count = output.shape[axis] - 1
    later = output.narrow(axis, 1, count)
    torch.maximum(later, odd.narrow(axis, 0, count), out=later)
    return output
