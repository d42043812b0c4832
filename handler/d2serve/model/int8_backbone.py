"""A ResNet with FPN in 8-bit integers: activations stay integers from layer to layer.

Units (the stem and the blocks of the ResNet, the top-down path and the outputs of the pyramid) that
lose too much keep the network's number type. A tensor between two units is UInt8 or Float, as the
first one leaves it.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.calibration import Calibration
from d2serve.model.fpn import FPN, add_upsampled
from d2serve.model.int8_conv import Int8Conv2d, Quantization
from d2serve.model.resnet import BasicBlock, BottleneckBlock, ResNet, Stem

MAX_POOL = torch.ops.quantized.max_pool2d
# Paths in the network.
RESNET, LATERAL, OUTPUT = "backbone.bottom_up", "backbone.fpn_lateral", "backbone.fpn_output"


class FloatUnit(nn.Module):
    """A unit in the network's number type, after integers in `source` or after Float."""

    def __init__(self, unit: nn.Module, source: Quantization, dtype: torch.dtype) -> None:
        super().__init__()
        self.unit, self.source, self.dtype = unit, source, dtype

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """UInt8 or Float[N, C, H, W] -> Float[N, C', H', W']."""
        output: Tensor = self.unit(self.source.as_float(input, self.dtype))
        return output


class Int8Stem(nn.Module):
    """See `Stem`."""

    def __init__(self, stem: Stem, source: Quantization, target: Quantization) -> None:
        super().__init__()
        self.conv1 = Int8Conv2d(stem.conv1, source, target)

    def forward(self, images: Tensor) -> Tensor:
        """UInt8 or Float[N, in_channels, H, W] -> UInt8[N, C, H/4, W/4]."""
        pooled: Tensor = MAX_POOL(self.conv1(images), [3, 3], [2, 2], [1, 1], [1, 1], False)
        return pooled


class Int8Block(nn.Module):
    """See `BasicBlock` and `BottleneckBlock`."""

    def __init__(
        self,
        block: BasicBlock | BottleneckBlock,
        name: str,
        source: Quantization,
        found: Calibration,
    ) -> None:
        super().__init__()
        self.source = self.summand = source
        self.shortcut: Int8Conv2d | None = None
        if block.shortcut is not None:
            self.summand = found.outputs[f"{name}.shortcut"]
            self.shortcut = Int8Conv2d(block.shortcut, source, self.summand)
        *names, last = [each for each in ("conv1", "conv2", "conv3") if hasattr(block, each)]
        self.inner = nn.Sequential()
        for each in names:
            target = found.outputs[f"{name}.{each}"]
            self.inner.append(Int8Conv2d(getattr(block, each), source, target))
            source = target
        self.last = Int8Conv2d(getattr(block, last), source, found.outputs[name])

    def forward(self, features: Tensor) -> Tensor:
        """UInt8 or Float[N, in, H, W] -> UInt8[N, out, H/stride, W/stride]; integers may be
        overwritten."""
        features = self.source.as_integers(features)
        hidden = self.inner(features)
        shortcut = features if self.shortcut is None else self.shortcut(features)
        return self.last.add(hidden, shortcut, self.summand, "relu")


class Int8FPN(nn.Module):
    """Replaces an `FPN` with folded norms on a CPU, and the units of its ResNet in place.

    Args:
        fpn: in float32.
        found: for the network whose child `backbone` the pyramid is.
        dtype: bfloat16 or float32, of the output and of the units that are kept.
    """

    def __init__(self, fpn: FPN, found: Calibration, dtype: torch.dtype) -> None:
        super().__init__()
        self.channels, self.strides = fpn.channels, fpn.strides
        self.size_divisibility, self.square_size = fpn.size_divisibility, fpn.square_size
        self.dtype, self.average = dtype, fpn.average
        self.top_block, self.top_source = fpn.top_block, fpn.top_source
        self.sources = quantize_resnet(resnet_of(fpn), found, dtype)
        self.bottom_up = fpn.bottom_up
        # From the coarsest level to the finest, as they are computed.
        self.stages = dict(reversed(fpn.stages.items()))
        # The additions are in integers if all summands are.
        laterals = {f"{LATERAL}{stage}" for stage in fpn.stages}
        self.quantized = laterals.isdisjoint(found.kept) and not fpn.average
        self.sums: dict[int, Quantization] = {}
        self.laterals, self.outputs = nn.ModuleDict(), nn.ModuleDict()
        for stage, name in self.stages.items():
            lateral = fpn.get_submodule(f"fpn_lateral{stage}")
            output = fpn.get_submodule(f"fpn_output{stage}")
            source = self.sources[name]
            self.sums[stage] = total = found.inputs[f"{OUTPUT}{stage}"]
            if self.quantized:
                self.laterals[str(stage)] = Int8Conv2d(lateral, source, total)
            else:
                self.laterals[str(stage)] = FloatUnit(lateral, source, dtype)
            if f"{OUTPUT}{stage}" in found.kept:
                self.outputs[str(stage)] = FloatUnit(output, total, dtype)
            else:
                self.outputs[str(stage)] = Int8Conv2d(output, total, None, dtype)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See `FPN.forward`."""
        stages = self.bottom_up(images)
        levels: dict[str, Tensor] = {}
        above: Tensor | None = None
        for stage, name in self.stages.items():
            above = self._add(stage, stages[name], above)
            levels[f"p{stage}"] = self.outputs[str(stage)](above)
        if self.top_block is not None:
            source = {**stages, **levels}[self.top_source]
            if self.top_source in self.sources:
                source = self.sources[self.top_source].as_float(source, self.dtype)
            top = self.top_block(source)
            names = (f"p{max(self.stages) + step}" for step in (1, 2))
            levels |= dict(zip(names, top, strict=False))
        return levels

    def _add(self, stage: int, features: Tensor, above: Tensor | None) -> Tensor:
        """The lateral convolution plus the coarser sum."""
        lateral = self.laterals[str(stage)]
        if above is None:
            first: Tensor = lateral(features)
            return first
        if isinstance(lateral, Int8Conv2d):
            upsampled = F.interpolate(above, scale_factor=2.0, mode="nearest")
            return lateral.add(features, upsampled, self.sums[stage + 1])
        fused: Tensor = lateral(features)
        add_upsampled(fused, above)
        return fused / 2 if self.average else fused


def quantize_resnet(
    resnet: ResNet, found: Calibration, dtype: torch.dtype
) -> dict[str, Quantization]:
    """Replace the units of a ResNet with folded norms; returns the quantization of its feature
    maps, by name."""
    source, sources = found.inputs[f"{RESNET}.stem"], {}
    for path, unit in list(resnet_units(resnet)):
        name = f"{RESNET}.{path}"
        replace_module(resnet, path, make_unit(name, unit, source, found, dtype))
        source = found.outputs[name]
        sources[path.partition(".")[0]] = source
    return sources


def resnet_of(fpn: FPN) -> ResNet:
    """The ResNet below a pyramid."""
    assert isinstance(fpn.bottom_up, ResNet), "checked before"
    return fpn.bottom_up


def resnet_units(resnet: ResNet) -> Iterator[tuple[str, nn.Module]]:
    """The stem and the blocks, in order, by their path in the ResNet."""
    yield "stem", resnet.stem
    for stage in resnet.stages:
        for index, block in resnet.get_submodule(stage).named_children():
            yield f"{stage}.{index}", block


def make_unit(
    name: str, unit: nn.Module, source: Quantization, found: Calibration, dtype: torch.dtype
) -> nn.Module:
    """The unit in 8-bit integers, unless it is kept."""
    if name not in found.kept and is_quantizable(unit):
        if isinstance(unit, Stem):
            return Int8Stem(unit, source, found.outputs[name])
        if isinstance(unit, BasicBlock | BottleneckBlock):
            return Int8Block(unit, name, source, found)
    return FloatUnit(unit, source, dtype)


def is_quantizable(unit: nn.Module) -> bool:
    """Return whether a unit has no norms that depend on the image, and a known structure."""
    plain = all(getattr(each, "norm", None) is None for each in unit.modules())
    return plain and isinstance(unit, Stem | BasicBlock | BottleneckBlock)


def replace_module(root: nn.Module, path: str, module: nn.Module) -> None:
    """Replace the descendant at a dotted path."""
    parent, _, name = path.rpartition(".")
    root.get_submodule(parent).add_module(name, module)
