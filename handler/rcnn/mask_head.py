"""The mask head (He et al. 2017; `detectron2.modeling.roi_heads.mask_head`)."""

import torch
from torch import Tensor, nn

from handler.rcnn.config.roi_heads import MaskHeadConfig
from handler.rcnn.layers import Conv2d


class MaskHead(nn.Sequential):
    """Convolutions, a 2x upsampling and one mask per class (`MaskRCNNConvUpsampleHead`)."""

    def __init__(self, in_channels: int, num_classes: int, config: MaskHeadConfig) -> None:
        super().__init__()
        for index in range(config.num_conv):
            conv = Conv2d(in_channels, config.conv_dim, 3, norm=config.norm, relu=True)
            self.add_module(f"mask_fcn{index + 1}", conv)
            in_channels = config.conv_dim
        self.add_module("deconv", nn.ConvTranspose2d(in_channels, config.conv_dim, 2, stride=2))
        self.add_module("deconv_relu", nn.ReLU(inplace=True))
        masks = 1 if config.class_agnostic else num_classes
        self.add_module("predictor", nn.Conv2d(config.conv_dim, masks, 1))
        self.class_agnostic = config.class_agnostic

    def predict(self, pooled: Tensor, classes: Tensor) -> Tensor:
        """The mask of each box's own class.

        Args:
            pooled: Float[M, C, S, S].
            classes: Int64[M].

        Returns:
            Float32[M, 2S, 2S], probabilities in 0..1 over the box's extent.
        """
        logits = self(pooled)
        channel = torch.zeros_like(classes) if self.class_agnostic else classes
        rows = torch.arange(len(classes), device=classes.device)
        probabilities: Tensor = logits[rows, channel].float().sigmoid()
        return probabilities
