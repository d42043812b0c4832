"""Inference optimizations of a loaded network; its results stay the same up to rounding."""

import torch
from torch import nn

from d2serve.model.attention import MultiheadAttention
from d2serve.model.box_head import BoxPredictor, ConvFCHead
from d2serve.model.condinst import Controller
from d2serve.model.deformable_attention import MSDeformAttn
from d2serve.model.deformable_conv import DeformConv2d, OffsetConv2d
from d2serve.model.layers import ChannelAffine, Conv2d, FrozenBatchNorm2d, FullyConnectedConv2d
from d2serve.model.linear import FullPrecisionLinear
from d2serve.model.network import Network
from d2serve.model.retinanet import BatchNormPerLevel, Statistics
from d2serve.model.vit import ViT

# Modules that compute in float32 in any case: class scores and box deltas, weights of mask heads,
# and deformable convolutions, whose sampling positions need it and whose kernel does not support
# bfloat16.
FULL_PRECISION = (BoxPredictor, Controller, OffsetConv2d, DeformConv2d, FullPrecisionLinear)
# Modules that are converted to the network's dtype.
CONVERTED = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.Linear,
    nn.GroupNorm,
    nn.LayerNorm,
    FrozenBatchNorm2d,
    ChannelAffine,
    BatchNormPerLevel,
    Statistics,
    ViT,  # with its positions, which are added to features
)


def optimize(model: Network, dtype: torch.dtype = torch.float32) -> Network:
    """Fold norms, convert the layers to `dtype` and lay out weights for convolutions.

    This changes the network in place, including the names of its state dict: call it after loading
    a checkpoint.

    Args:
        model: the network.
        dtype: float32, bfloat16 or float16. Boxes, scores and non-maximum suppression are float32
            in any case, see FULL_PRECISION.
    """
    fold_norms(model)
    for module in model.modules():
        if isinstance(module, ConvFCHead):
            _replace_linear(module)
        _replace_attention(module)
    _convert(model, dtype)
    model.dtype = dtype
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def fold_norms(model: nn.Module) -> None:
    """Fold every frozen batch norm into weight and bias of its convolution.

    A norm computes w * (x - mean) / sqrt(var + eps) + b per channel, so a convolution with scaled
    weights and another bias gives the same. Group norms depend on the image and stay.
    """
    for module in model.modules():
        if isinstance(module, Conv2d | DeformConv2d) and isinstance(module.norm, FrozenBatchNorm2d):
            _fold(module, module.norm)
            module.norm = None


def _fold(convolution: Conv2d | DeformConv2d, norm: FrozenBatchNorm2d) -> None:
    # In float64, because small variances give large factors.
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = norm.bias.double() - norm.running_mean.double() * scale
    weight = convolution.weight.double() * scale[:, None, None, None]
    convolution.weight = _parameter(weight)
    convolution.bias = _parameter(bias)


def _replace_linear(head: ConvFCHead) -> None:
    """Replace fully connected layers by convolutions, which take channels_last regions directly."""
    for name, layer in list(head.named_children()):
        if isinstance(layer, nn.Linear):
            head.add_module("flatten", nn.Identity())
            side = head.resolution if name == "fc1" else 1
            channels = layer.in_features // side**2
            convolution = FullyConnectedConv2d(channels, layer.out_features, side)
            convolution.weight = _parameter(layer.weight.view(-1, channels, side, side))
            convolution.bias = _parameter(layer.bias)
            head.add_module(name, convolution)


def _replace_attention(module: nn.Module) -> None:
    """Replace attention by layers that read their weights without rearranging them."""
    for name, child in list(module.named_children()):
        if isinstance(child, MultiheadAttention):
            module.add_module(name, child.split())
        elif isinstance(child, MSDeformAttn):
            module.add_module(name, child.join())


def _parameter(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values.float(), requires_grad=False)


def _convert(module: nn.Module, dtype: torch.dtype) -> None:
    # Buffers of other modules (anchors, pixel means) are positions and stay float32.
    if isinstance(module, FULL_PRECISION):
        return
    if isinstance(module, CONVERTED):
        module.to(dtype)
    for child in module.children():
        _convert(child, dtype)
