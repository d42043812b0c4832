"""Inference optimisations of a loaded network that keep its results, rounding apart."""

import torch
from torch import nn

from d2serve.model.box_head import BoxPredictor, ConvFCHead
from d2serve.model.layers import Conv2d, DeformConv2d, FrozenBatchNorm2d, OffsetConv2d, WholeConv2d
from d2serve.model.network import Network
from d2serve.model.vit import ViT

# What computes in float32 whatever the rest does: class scores and box deltas, and deformable
# convolutions, whose sampling positions need it and whose kernel knows no bfloat16.
FULL_PRECISION = (BoxPredictor, OffsetConv2d, DeformConv2d)
LAYERS = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.Linear,
    nn.GroupNorm,
    nn.LayerNorm,
    FrozenBatchNorm2d,
    ViT,  # as a whole: its positions are added to features
)


def optimise(model: Network, dtype: torch.dtype = torch.float32) -> Network:
    """Folds norms, converts the layers to `dtype`, lays weights out as convolutions want them.

    Changes the network in place, its state dict's names too: to be called after loading.

    Args:
        dtype: float32, bfloat16 or float16. Boxes, scores and non-maximum suppression are float32
            in any case, see FULL_PRECISION.
    """
    fold_norms(model)
    for module in model.modules():
        if isinstance(module, ConvFCHead):
            _convolve(module)
    _convert(model, dtype)
    model.dtype = dtype
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def fold_norms(model: nn.Module) -> None:
    """Takes every fixed batch norm into the weight and the bias of its convolution.

    A norm is w * (x - mean) / sqrt(var + eps) + b for each channel, so a convolution with scaled
    weights and another bias computes the same. Group norms depend on the picture and stay.
    """
    for module in model.modules():
        if isinstance(module, Conv2d | DeformConv2d) and isinstance(module.norm, FrozenBatchNorm2d):
            _fold(module, module.norm)
            module.norm = None


def _fold(convolution: Conv2d | DeformConv2d, norm: FrozenBatchNorm2d) -> None:
    # In float64, because small variances make large factors.
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = norm.bias.double() - norm.running_mean.double() * scale
    weight = convolution.weight.double() * scale[:, None, None, None]
    convolution.weight = _fixed(weight)
    convolution.bias = _fixed(bias)


def _convolve(head: ConvFCHead) -> None:
    """Makes the fully connected layers convolutions of their whole input.

    So they take pooled regions as they lie in memory.
    """
    for name, layer in list(head.named_children()):
        if isinstance(layer, nn.Linear):
            head.add_module("flatten", nn.Identity())
            side = head.resolution if name == "fc1" else 1
            channels = layer.in_features // side**2
            convolution = WholeConv2d(channels, layer.out_features, side)
            convolution.weight = _fixed(layer.weight.view(-1, channels, side, side))
            convolution.bias = _fixed(layer.bias)
            head.add_module(name, convolution)


def _fixed(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values.float(), requires_grad=False)


def _convert(module: nn.Module, dtype: torch.dtype) -> None:
    """Buffers of other modules (anchors, the pixels' mean) are positions and stay float32."""
    if isinstance(module, FULL_PRECISION):
        return
    if isinstance(module, LAYERS):
        module.to(dtype)
    for child in module.children():
        _convert(child, dtype)
