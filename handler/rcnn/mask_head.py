"""The mask head (He et al. 2017; `detectron2.modeling.roi_heads.mask_head`)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handler.rcnn.config.roi_heads import MaskHeadConfig
from handler.rcnn.layers import Conv2d


class MaskPredictor(nn.Conv2d):
    """A 1x1 convolution of which each box takes one channel, so that only that is worked out."""

    def forward(self, hidden: Tensor, channels: Tensor) -> Tensor:  # type: ignore[override]
        """Float[M, P, C] of P pixels and Int64[M] -> Float[M, P, 1]."""
        assert self.bias is not None
        weight, bias = self.weight[channels, :, 0], self.bias[channels]
        return torch.baddbmm(bias[:, None, None], hidden, weight)


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
        self.add_module("predictor", MaskPredictor(config.conv_dim, masks, 1))
        self.class_agnostic = config.class_agnostic

    def predict(self, pooled: Tensor, classes: Tensor) -> Tensor:
        """The mask of each box's own class.

        Args:
            pooled: Float[M, C, S, S].
            classes: Int64[M].

        Returns:
            Float32[M, 2S, 2S], probabilities in 0..1 over the box's extent.
        """
        *convs, deconv, relu, predictor = self
        hidden = relu(_upsample(nn.Sequential(*convs)(pooled), deconv))
        channels = torch.zeros_like(classes) if self.class_agnostic else classes
        logits = predictor(hidden.flatten(1, 4), channels).view(hidden.shape[:-1])
        # Rows of cells and the two of each cell, then columns likewise.
        probabilities: Tensor = logits.transpose(2, 3).flatten(3).flatten(1, 2).float().sigmoid()
        return probabilities


def _upsample(hidden: Tensor, deconv: nn.ConvTranspose2d) -> Tensor:
    """Float[M, C, S, S] -> Float[M, S, S, 2, 2, C']: for each cell the four it becomes.

    A 2x2 transposed convolution of stride 2 is a 1x1 convolution, which is quicker on a CPU.
    """
    assert deconv.bias is not None
    weight = deconv.weight.permute(2, 3, 1, 0).flatten(0, 2)[:, :, None, None]
    cells = F.conv2d(hidden, weight, deconv.bias.repeat(4))
    return cells.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))
