"""The mask head (He et al. 2017; `detectron2.modeling.roi_heads.mask_head`)."""

import torch
from torch import Tensor, nn

from d2serve.model.heads_config import MaskHeadConfig
from d2serve.model.layers import Conv2d, Deconv2x2


class MaskHead(nn.Sequential):
    """Convolutions, a 2x upsampling and a mask per class (`MaskRCNNConvUpsampleHead`)."""

    def __init__(self, in_channels: int, num_classes: int, config: MaskHeadConfig) -> None:
        super().__init__()
        for index in range(config.num_conv):
            conv = Conv2d(in_channels, config.conv_dim, 3, norm=config.norm, relu=True)
            self.add_module(f"mask_fcn{index + 1}", conv)
            in_channels = config.conv_dim
        if config.spatial_attention:
            self.add_module("spatialAtt", SpatialAttention())
        self.add_module("deconv", Deconv2x2(in_channels, config.conv_dim))
        masks = 1 if config.class_agnostic else num_classes
        self.add_module("predictor", MaskPredictor(config.conv_dim, masks, 1))
        self.class_agnostic = config.class_agnostic

    def predict(self, pooled: Tensor, classes: Tensor) -> Tensor:
        """Predict the mask of each box for its class.

        Args:
            pooled: Float[M, C, S, S].
            classes: Int64[M].

        Returns:
            Float32[M, 2S, 2S], probabilities in 0..1 over the box's extent.
        """
        *convs, predictor = self
        hidden = nn.Sequential(*convs)(pooled)
        channels = torch.zeros_like(classes) if self.class_agnostic else classes
        logits = predictor(hidden.flatten(1, 4), channels).view(hidden.shape[:-1])
        # [M, S, S, 2, 2]: interleave the rows within cells with the rows of cells, then columns.
        probabilities: Tensor = logits.transpose(2, 3).flatten(3).flatten(1, 2).float().sigmoid()
        return probabilities


class SpatialAttention(nn.Module):
    """Scale each pixel by a number from its mean and maximum (Lee and Park 2020, CenterMask)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, regions: Tensor) -> Tensor:
        """Float[M, C, S, S] -> the same shape."""
        means = regions.mean(dim=1, keepdim=True)
        maxima = regions.amax(dim=1, keepdim=True)
        return regions * self.conv(torch.cat((means, maxima), dim=1)).sigmoid()


class MaskPredictor(nn.Conv2d):
    """A 1x1 convolution that computes a single output channel for each box."""

    def forward(self, hidden: Tensor, channels: Tensor) -> Tensor:  # type: ignore[override]
        """Float[M, P, C] of P pixels and Int64[M] -> Float[M, P, 1]."""
        assert self.bias is not None
        weight, bias = self.weight[channels, :, 0], self.bias[channels]
        return torch.baddbmm(bias[:, None, None], hidden, weight)
