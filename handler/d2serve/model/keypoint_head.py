"""The keypoint head and its heatmaps (`detectron2.modeling.roi_heads.keypoint_head`).

He et al. 2017, section 5.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.heads_config import KeypointHeadConfig
from d2serve.model.layers import Conv2d

# Parameter `a` of torch's bicubic interpolation (Keys 1981).
CUBIC = -0.75
# Resampled heatmap pixels at a time, to bound memory.
MAX_PIXELS = {"cpu": 1 << 23, "cuda": 1 << 28}


class KeypointHead(nn.Sequential):
    """Convolutions and a 4x upsampling to a heatmap per keypoint
    (`KRCNNConvDeconvUpsampleHead`)."""

    def __init__(self, in_channels: int, config: KeypointHeadConfig) -> None:
        super().__init__()
        for index, channels in enumerate(config.conv_dims):
            self.add_module(f"conv_fcn{index + 1}", Conv2d(in_channels, channels, 3, relu=True))
            in_channels = channels
        upsampling = nn.ConvTranspose2d(in_channels, config.num_keypoints, 4, stride=2, padding=1)
        self.add_module("score_lowres", upsampling)

    def predict(self, pooled: Tensor, boxes: Tensor) -> Tensor:
        """Predict the keypoints of each box.

        Args:
            pooled: Float[M, C, S, S].
            boxes: Float32[M, 4] xyxy in input pixels.

        Returns:
            Float32[M, K, 3]: x and y in input pixels, score in 0..1.
        """
        heatmaps = F.interpolate(
            self(pooled).float(), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        return find_peaks(heatmaps, boxes)


def find_peaks(heatmaps: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """Locate the maximum of each heatmap, resampled bicubically to the pixels of its box.

    Resampling is a matrix product for the rows and one for the columns, so boxes of all sizes run
    together, padded to the largest ones; large batches are split to bound memory.

    Args:
        heatmaps: Float32[N, K, S, S] logits over the boxes.
        boxes_xyxy: Float32[N, 4] in pixels.

    Returns:
        Float32[N, K, 3]: x, y in pixels, and the softmax at the peak over the heatmap's own cells,
        so that the scores of boxes of all sizes are comparable.
    """
    sizes = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).clamp(min=1)
    pixels = sizes.ceil()
    points = heatmaps.new_zeros((*heatmaps.shape[:2], 3))
    areas = pixels.prod(dim=1)
    order = areas.argsort(descending=True)
    ordered = pixels[order].long().tolist()
    start = 0
    for count, width, height in _batches(ordered, heatmaps):
        chosen = order[start : start + count]
        peaks, highest = _resampled_maximum(heatmaps[chosen], pixels[chosen], width, height)
        centres = (peaks + 0.5) * (sizes / pixels)[chosen, None] + boxes_xyxy[chosen, None, :2]
        scores = 1.0 / (heatmaps[chosen].flatten(2) - highest[..., None]).exp().sum(dim=2)
        points.index_put_((chosen,), torch.cat((centres, scores[..., None]), dim=2))
        start += count
    return points


def _batches(sizes_wh: list[list[int]], heatmaps: Tensor) -> Iterator[tuple[int, int, int]]:
    """Yield the number of boxes that fit memory together, and their largest width and height."""
    budget = MAX_PIXELS["cpu" if heatmaps.device.type == "cpu" else "cuda"]
    count, max_width, max_height = 0, 0, 0
    for width, height in sizes_wh:
        new_width, new_height = max(max_width, width), max(max_height, height)
        if count and (count + 1) * heatmaps.shape[1] * new_width * new_height > budget:
            yield count, max_width, max_height
            count, new_width, new_height = 0, width, height
        count, max_width, max_height = count + 1, new_width, new_height
    if count:
        yield count, max_width, max_height


def _resampled_maximum(
    heatmaps: Tensor, sizes_wh: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor]:
    """Float32[N, K, 2] x and y of the highest pixel, and Float32[N, K] its value."""
    side = heatmaps.shape[-1]
    rows, columns = (
        _cubic_weights(sizes_wh[:, axis], length, side)[:, None]
        for axis, length in ((1, height), (0, width))
    )
    resampled = (rows @ heatmaps @ columns.transpose(-1, -2)).flatten(2)
    highest, peak = resampled.max(dim=2)
    position = torch.stack((peak % width, peak // width), dim=-1)
    return torch.minimum(position, sizes_wh[:, None] - 1), highest


def _cubic_weights(lengths: Tensor, padded_length: int, side: int) -> Tensor:
    """Weights of heatmap cells in the resampled pixels along one axis.

    Args:
        lengths: Float32[N], pixels of each line.
        padded_length: pixels of all lines; those after a line's last one repeat it.
        side: cells of the heatmap.

    Returns:
        Float32[N, padded_length, side].
    """
    pixel = torch.arange(padded_length, dtype=lengths.dtype, device=lengths.device)
    pixel = torch.minimum(pixel, lengths[:, None] - 1)
    source = (pixel + 0.5) * (side / lengths)[:, None] - 0.5
    cell = source.floor()
    fraction = source - cell
    taps = (_outer(fraction + 1), _inner(fraction), _inner(1 - fraction), _outer(2 - fraction))
    weights = source.new_zeros((*source.shape, side))
    for step, weight in enumerate(taps, start=-1):
        index = (cell.long() + step).clamp(0, side - 1)
        weights.scatter_add_(2, index[..., None], weight[..., None])
    return weights


def _inner(distance: Tensor) -> Tensor:
    """The cubic kernel for distances in 0..1."""
    return ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1


def _outer(distance: Tensor) -> Tensor:
    """The cubic kernel for distances in 1..2."""
    return ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
