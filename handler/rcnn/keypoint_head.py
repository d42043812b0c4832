"""The keypoint head (He et al. 2017, section 5; `detectron2.modeling.roi_heads.keypoint_head`)."""

import torch.nn.functional as F
from torch import Tensor, nn

from handler.rcnn.config.roi_heads import KeypointHeadConfig
from handler.rcnn.heatmaps import find_peaks
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
        return find_peaks(heatmaps, boxes)
