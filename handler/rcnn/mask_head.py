"""The mask head (He et al. 2017; `detectron2.modeling.roi_heads.mask_head`)."""

import torch
import torch.nn.functional as F
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
        *convs, deconv, relu, predictor = self
        hidden = relu(_upsample(nn.Sequential(*convs)(pooled), deconv))
        channel = torch.zeros_like(classes) if self.class_agnostic else classes
        # Of all classes' masks only the box's own is worked out.
        weight, bias = predictor.weight[channel, :, 0], predictor.bias[channel]
        logits = torch.baddbmm(bias[:, None, None], hidden.flatten(1, 4), weight)
        # Rows of cells and of each cell, then columns of cells and of each cell.
        in_order = logits.view(hidden.shape[:-1]).transpose(2, 3)
        return in_order.flatten(3).flatten(1, 2).float().sigmoid()


def _upsample(hidden: Tensor, deconv: nn.ConvTranspose2d) -> Tensor:
    """Float[M, C, S, S] -> Float[M, S, S, 2, 2, C']: for each cell the four it becomes.

    A 2x2 transposed convolution of stride 2 is a 1x1 convolution, which is quicker on a CPU.
    """
    assert deconv.bias is not None
    weight = deconv.weight.permute(2, 3, 1, 0).flatten(0, 2)[:, :, None, None]
    cells = F.conv2d(hidden, weight, deconv.bias.repeat(4))
    return cells.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))
