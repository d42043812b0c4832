"""The keypoint head and its heatmaps (He et al. 2017, section 5; `detectron2.modeling.roi_heads.keypoint_head`)."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.config import KeypointHeadConfig
from d2serve.model.layers import Conv2d

# Of the cubic that torch's bicubic interpolation takes (Keys 1981).
CUBIC = -0.75
# Heatmap pixels that are worked out at once, which bounds memory.
PIXELS_AT_ONCE = {"cpu": 1 << 23, "cuda": 1 << 28}


def find_peaks(heatmaps: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """Where each heatmap is highest, once it is resampled bicubically to the pixels of its box.

    Resampling is a product with a matrix for the rows and one for the columns, so that boxes of
    all sizes take it together, padded to the largest of those that fit memory.

    Args:
        heatmaps: Float32[N, K, S, S] logits over the boxes.
        boxes_xyxy: Float32[N, 4] in pixels.

    Returns:
        Float32[N, K, 3]: x, y in pixels, and the softmax at the peak over the heatmap's own cells,
        so that boxes of all sizes compare.
    """
    sizes = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).clamp(min=1)
    pixels = sizes.ceil()
    points = heatmaps.new_zeros((*heatmaps.shape[:2], 3))
    areas = pixels.prod(dim=1)
    order = areas.argsort(descending=True)
    ordered = pixels[order].long().tolist()
    start = 0
    for count, width, height in _parts(ordered, heatmaps):
        chosen = order[start : start + count]
        peaks, highest = _highest(heatmaps[chosen], pixels[chosen], width, height)
        centres = (peaks + 0.5) * (sizes / pixels)[chosen, None] + boxes_xyxy[chosen, None, :2]
        scores = 1.0 / (heatmaps[chosen].flatten(2) - highest[..., None]).exp().sum(dim=2)
        points.index_put_((chosen,), torch.cat((centres, scores[..., None]), dim=2))
        start += count
    return points


def _parts(sizes_wh: list[list[int]], heatmaps: Tensor) -> Iterator[tuple[int, int, int]]:
    """How many of the next boxes go together, and the width and height that hold each of them."""
    budget = PIXELS_AT_ONCE["cpu" if heatmaps.device.type == "cpu" else "cuda"]
    count, widest, highest = 0, 0, 0
    for width, height in sizes_wh:
        wider, higher = max(widest, width), max(highest, height)
        if count and (count + 1) * heatmaps.shape[1] * wider * higher > budget:
            yield count, widest, highest
            count, wider, higher = 0, width, height
        count, widest, highest = count + 1, wider, higher
    if count:
        yield count, widest, highest


def _highest(heatmaps: Tensor, sizes_wh: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Float32[N, K, 2] x and y of the highest pixel, and Float32[N, K] what it is."""
    side = heatmaps.shape[-1]
    rows, columns = (
        _cubic_weights(sizes_wh[:, axis], length, side)[:, None]
        for axis, length in ((1, height), (0, width))
    )
    resampled = (rows @ heatmaps @ columns.transpose(-1, -2)).flatten(2)
    highest, peak = resampled.max(dim=2)
    place = torch.stack((peak % width, peak // width), dim=-1)
    return torch.minimum(place, sizes_wh[:, None] - 1), highest


def _cubic_weights(lengths: Tensor, most: int, side: int) -> Tensor:
    """Float32[N, most, side]: what each of `side` cells adds to each of Float32[N] pixels of a
    line; pixels after a line's last repeat it."""
    pixel = torch.arange(most, dtype=lengths.dtype, device=lengths.device)
    pixel = torch.minimum(pixel, lengths[:, None] - 1)
    source = (pixel + 0.5) * (side / lengths)[:, None] - 0.5
    cell = source.floor()
    behind = source - cell
    taps = (_far(behind + 1), _near(behind), _near(1 - behind), _far(2 - behind))
    weights = source.new_zeros((*source.shape, side))
    for step, weight in enumerate(taps, start=-1):
        index = (cell.long() + step).clamp(0, side - 1)
        weights.scatter_add_(2, index[..., None], weight[..., None])
    return weights


def _near(distance: Tensor) -> Tensor:
    """The cubic up to a distance of 1."""
    return ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1


def _far(distance: Tensor) -> Tensor:
    """The cubic from a distance of 1 to one of 2."""
    return ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC


class KeypointHead(nn.Sequential):
    """Convolutions and a 4x upsampling to a heatmap for each keypoint
    (`KRCNNConvDeconvUpsampleHead`)."""

    def __init__(self, in_channels: int, config: KeypointHeadConfig) -> None:
        super().__init__()
        for index, channels in enumerate(config.conv_dims):
            self.add_module(f"conv_fcn{index + 1}", Conv2d(in_channels, channels, 3, relu=True))
            in_channels = channels
        upsampling = nn.ConvTranspose2d(in_channels, config.num_keypoints, 4, stride=2, padding=1)
        self.add_module("score_lowres", upsampling)

    def predict(self, pooled: Tensor, boxes: Tensor) -> Tensor:
        """The keypoints of each box.

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
