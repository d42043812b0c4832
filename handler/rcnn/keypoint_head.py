"""The keypoint head (He et al. 2017, section 5; `detectron2.modeling.roi_heads.keypoint_head`)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handler.rcnn.config.roi_heads import KeypointHeadConfig
from handler.rcnn.layers import Conv2d


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
        points = [_locate(*region) for region in zip(heatmaps, boxes, strict=True)]
        return torch.stack(points) if points else heatmaps.new_zeros((0, heatmaps.shape[1], 3))


def _locate(heatmaps: Tensor, box: Tensor) -> Tensor:
    """The peaks of Float[K, S, S] logits, resampled to the pixels of their box
    (`detectron2.structures.keypoints.heatmaps_to_keypoints`)."""
    size = (box[2:] - box[:2]).clamp(min=1)
    width, height = (int(side) for side in size.ceil())
    resampled = F.interpolate(
        heatmaps[None], size=(height, width), mode="bicubic", align_corners=False
    )[0].flatten(1)
    peak = resampled.argmax(dim=1)
    pixel = torch.stack((peak % width, peak // width), dim=1)
    centre = (pixel + 0.5) * (size / size.ceil()) + box[:2]
    return torch.cat((centre, _scores(heatmaps, resampled)[:, None]), dim=1)


def _scores(heatmaps: Tensor, resampled: Tensor) -> Tensor:
    """The softmax at each peak, over the heatmap's own cells so that boxes of all sizes compare."""
    highest = resampled.amax(dim=1)
    return 1.0 / (heatmaps.flatten(1) - highest[:, None]).exp().sum(dim=1)
