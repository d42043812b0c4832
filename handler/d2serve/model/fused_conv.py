"""Convolutions with bias, ReLU and residual in one kernel, in half precision on NVIDIA GPUs.

torch adds the bias by a kernel of its own, which takes longer than the convolution where channels
are last in memory. cuDNN computes all at once, and cuBLAS 1x1 convolutions with their bias. torch's
operators for that are not documented: they are compared with the plain layer before they are used.
"""

import logging
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.layers import Conv2d
from d2serve.model.packed_conv import FAILURES, is_close, sample_features, waves

logger = logging.getLogger(__name__)
HALF = (torch.bfloat16, torch.float16)
SAMPLE_CHANNELS = 16


def fuse(model: nn.Module, operators: Any = torch) -> None:
    """Replace the convolutions of a network on a GPU, in place, where they compute in half
    precision and torch's operators are usable.

    Args:
        model: the network, with folded norms, in channels_last.
        operators: has `cudnn_convolution_relu`, `cudnn_convolution_add_relu` and
            `_addmm_activation`, as torch.
    """
    usable: dict[tuple[torch.dtype, torch.device], bool] = {}
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if not _is_eligible(child):
                continue
            dtype, device = child.weight.dtype, child.weight.device
            if (dtype, device) not in usable:
                problem = find_problem(dtype, device, operators)
                usable[dtype, device] = not problem
                if problem:
                    logger.warning("fused convolutions in %s are not usable: %s", dtype, problem)
            if usable[dtype, device]:
                module.add_module(name, FusedConv2d(child, operators))


def _is_eligible(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    # Other subclasses read their weights themselves.
    return (
        isinstance(layer, nn.Conv2d)
        and type(layer) in (Conv2d, nn.Conv2d)
        and layer.weight.dtype in HALF
        and layer.bias is not None
        and layer.groups == 1
        and getattr(layer, "norm", None) is None
    )


class FusedConv2d(nn.Module):
    """Replaces a convolution with a bias and without a norm; see `Conv2d`."""

    def __init__(self, convolution: nn.Conv2d, operators: Any = torch) -> None:
        super().__init__()
        self.operators = operators
        self.weight = convolution.weight
        assert convolution.bias is not None
        self.bias = convolution.bias
        self.relu = bool(getattr(convolution, "relu", False))
        self.geometry: tuple[list[int], list[int], list[int], int] = (
            [*convolution.stride],
            [*map(int, convolution.padding)],
            [*convolution.dilation],
            convolution.groups,
        )
        self.is_product = convolution.kernel_size == convolution.stride == (1, 1)
        self.is_fused = True

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """Float[N, in_channels, H, W] -> Float[N, out_channels, H', W']."""
        if self.is_fused:
            try:
                return self._fused(input)
            except FAILURES as error:
                self._use_plain(error)
        output = self._plain(input)
        return F.relu_(output) if self.relu else output

    def add_relu(self, input: Tensor, other: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """See `Conv2d.add_relu`."""
        if self.is_fused:
            try:
                output: Tensor = self.operators.cudnn_convolution_add_relu(
                    input, self.weight, other, 1.0, self.bias, *self.geometry
                )
                return output
            except FAILURES as error:
                self._use_plain(error)
        return F.relu_(self._plain(input).add_(other))

    def _fused(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        output: Tensor
        if self.is_product:
            pixels = input.permute(0, 2, 3, 1)
            rows, weight = pixels.flatten(0, 2), self.weight.flatten(1).t()
            if self.relu:
                output = self.operators._addmm_activation(self.bias, rows, weight)
            else:
                output = torch.addmm(self.bias, rows, weight)
            return output.view(*pixels.shape[:3], -1).permute(0, 3, 1, 2)
        if self.relu:
            output = self.operators.cudnn_convolution_relu(
                input, self.weight, self.bias, *self.geometry
            )
            return output
        return self._plain(input)

    def _plain(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        return F.conv2d(input, self.weight, self.bias, *self.geometry)

    def _use_plain(self, error: Exception) -> None:
        """Handle a size that cuDNN has no kernel for; an error that remains is raised again by the
        plain convolution."""
        if isinstance(error, torch.OutOfMemoryError):
            raise error
        self.is_fused = False
        logger.warning("a convolution runs unfused from now on: %s", error)


def find_problem(dtype: torch.dtype, device: torch.device, operators: Any = torch) -> str:
    """Compare fused layers with plain ones on a sample.

    Returns:
        Why the operators are not usable; empty if they are.
    """
    features = sample_features(dtype).to(device)
    try:
        with torch.inference_mode():
            for kernel_size in (3, 1):
                plain = _sample_layer(kernel_size).to(device, dtype)
                fused = FusedConv2d(plain, operators)
                pairs = [(fused._fused(features), plain(features))]
                plain.relu = False  # as in all layers with a shortcut
                pairs.append(
                    (fused.add_relu(features, features), plain.add_relu(features, features))
                )
                if not fused.is_fused or not all(is_close(*pair) for pair in pairs):
                    return f"a {kernel_size}x{kernel_size} convolution of a sample is wrong"
    except FAILURES as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _sample_layer(kernel_size: int) -> Conv2d:
    with torch.device("meta"):  # avoids random initialization
        layer = Conv2d(SAMPLE_CHANNELS, SAMPLE_CHANNELS, kernel_size, relu=True)
    layer.weight = nn.Parameter(waves(*layer.weight.shape), requires_grad=False)
    layer.bias = nn.Parameter(waves(SAMPLE_CHANNELS), requires_grad=False)
    return layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
