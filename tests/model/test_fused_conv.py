"""Fused convolutions equal the plain ones; layers whose operators do not work stay plain."""

import copy
import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.fused_conv import FusedConv2d, find_problem, fuse
from d2serve.model.layers import Conv2d

CPU = torch.device("cpu")
DTYPE = torch.bfloat16


class CuDNN:
    """Stands in for torch's operators on a machine without a GPU."""

    def cudnn_convolution_relu(
        self,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        *geometry: Any,
    ) -> Tensor:
        return F.relu(F.conv2d(features, weight, bias, *geometry))

    def cudnn_convolution_add_relu(
        self,
        features: Tensor,
        weight: Tensor,
        other: Tensor,
        alpha: float,
        bias: Tensor,
        *geometry: Any,
    ) -> Tensor:
        return F.relu(F.conv2d(features, weight, bias, *geometry) + alpha * other)

    def _addmm_activation(self, bias: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
        return F.relu(torch.addmm(bias, rows, weight))


class Sizes(CuDNN):
    """Has no kernel for maps of 7 pixels."""

    def cudnn_convolution_relu(self, features: Tensor, *rest: Any) -> Tensor:
        if features.shape[2] == 7:
            raise RuntimeError("FIND was unable to find an engine to execute this computation")
        return super().cudnn_convolution_relu(features, *rest)


class Wrong(CuDNN):
    """Forgets the residual."""

    def cudnn_convolution_add_relu(self, features: Tensor, *rest: Any) -> Tensor:
        weight, _, _, bias, *geometry = rest
        return F.relu(F.conv2d(features, weight, bias, *geometry))


def layer(kernel_size: int, relu: bool, stride: int = 1) -> Conv2d:
    torch.manual_seed(kernel_size)
    convolution = Conv2d(16, 16, kernel_size, stride=stride, relu=relu).to(DTYPE)
    return convolution.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def features(side: int = 9) -> Tensor:
    random = torch.Generator().manual_seed(1)
    drawn = torch.randn(2, 16, side, side, generator=random).to(DTYPE)
    return drawn.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("kernel_size", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_a_fused_convolution_equals_the_plain_one(
    kernel_size: int, stride: int, relu: bool
) -> None:
    plain = layer(kernel_size, relu, stride)
    fused = FusedConv2d(plain, CuDNN())
    with torch.inference_mode():
        expected = plain(features())
        torch.testing.assert_close(fused(features()), expected, atol=0.02, rtol=0.02)
        other = torch.ones_like(expected)
        summed = F.relu(F.conv2d(features(), plain.weight, plain.bias, stride, plain.padding) + 1)
        torch.testing.assert_close(fused.add_relu(features(), other), summed, atol=0.02, rtol=0.02)
    assert fused.is_fused


def test_convolutions_in_half_precision_are_replaced_and_others_stay() -> None:
    model = nn.Sequential(layer(3, True), nn.Conv2d(16, 3, 1, dtype=DTYPE), Conv2d(16, 16, 3))
    model.append(Conv2d(16, 16, 3, groups=2).to(DTYPE))
    model.append(Conv2d(16, 32, 3, norm="GN").to(DTYPE))
    fuse(model, CuDNN())
    kinds = [type(each) for each in model]
    assert kinds == [FusedConv2d, FusedConv2d, Conv2d, Conv2d, Conv2d]
    before = copy.copy(list(model))
    fuse(model, CuDNN())
    assert list(model) == before


@pytest.mark.parametrize(
    ("operators", "problem"),
    [
        (object(), "AttributeError"),
        (Wrong(), "a 3x3 convolution of a sample is wrong"),
    ],
)
def test_layers_stay_plain_where_an_operator_does_not_work(
    operators: object, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert problem in find_problem(DTYPE, CPU, operators)
    model = nn.Sequential(layer(3, True), layer(1, False))
    fuse(model, operators)
    assert [type(each) for each in model] == [Conv2d, Conv2d]
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert problem in record.message


def test_a_size_without_a_kernel_runs_plain_from_then_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = layer(3, True)
    fused = FusedConv2d(plain, Sizes())
    with torch.inference_mode():
        for side in (9, 7, 7, 9):
            torch.testing.assert_close(
                fused(features(side)), plain(features(side)), atol=0.02, rtol=0.02
            )
    assert not fused.is_fused
    [record] = caplog.records
    assert "unable to find an engine" in record.message


def test_a_lack_of_memory_is_not_hidden() -> None:
    class Full(CuDNN):
        def cudnn_convolution_relu(self, *_: Any) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    fused = FusedConv2d(layer(3, True), Full())
    with pytest.raises(torch.OutOfMemoryError):
        fused(features())
    assert fused.is_fused
