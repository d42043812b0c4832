"""Quantization of a network to 8-bit integers after training, from sample images (Jacob et al.
2018).

The ResNet, its pyramid and the 3x3 convolutions of the heads compute in integers, and everything
else in the network's number type, as do parts whose outputs would change by more than MAX_ERROR.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from d2serve.errors import ConfigError
from d2serve.model.calibration import Calibration, Observer
from d2serve.model.fpn import FPN
from d2serve.model.int8_backbone import (
    RESNET,
    Int8FPN,
    is_quantizable,
    make_unit,
    replace_module,
    resnet_of,
    resnet_units,
)
from d2serve.model.int8_conv import Int8Conv2d, Quantization, find_problem
from d2serve.model.layers import Conv2d
from d2serve.model.network import Network
from d2serve.model.resnet import ResNet

# Of a part's output, as the norm of the difference to float32 by the norm of the output.
MAX_ERROR = 0.1
INNER = ("conv1", "conv2", "shortcut")
Run = Callable[[], object]
Visit = Callable[[Tensor, Tensor], object]


def quantize(model: Network, found: Calibration, dtype: torch.dtype) -> None:
    """Replace layers of an optimized network in float32 on the CPU, in place.

    Args:
        model: the network.
        found: the result of `calibrate` for it.
        dtype: bfloat16 or float32, which the remaining layers are converted to afterwards.

    Raises:
        ConfigError: the network has another backbone than a ResNet with FPN, or the calibration is
            another network's.
    """
    try:
        for path, target in list(_head_targets(model, found)):
            layer = model.get_submodule(path)
            assert isinstance(layer, nn.Conv2d)
            replace_module(model, path, Int8Conv2d(layer, found.inputs[path], target, dtype))
        model.add_module("backbone", Int8FPN(_pyramid(model), found, dtype))
    except KeyError as error:
        raise ConfigError(
            f"the calibration has no entry {error}; build the archive again with --precision int8"
        ) from error


def calibrate(model: Network, runs: Iterable[Run]) -> Calibration:
    """Find the quantization of activations, and the parts to keep in another type.

    Args:
        model: an optimized network in float32 on the CPU.
        runs: each calls the network with other images, which are usual ones; called twice.

    Raises:
        ConfigError: the network has another backbone than a ResNet with FPN, or this machine does
            not compute 8-bit integers, which the errors are measured in.
    """
    problem = find_problem()
    if problem:
        raise ConfigError(
            f"8-bit integers cannot be calibrated on this machine: {problem}; use an x86 CPU with "
            "VNNI or AMX, and torch 2.6 to 2.11"
        )
    runs = list(runs)
    ranges = _find_ranges(model, runs)
    errors = find_errors(model, ranges, runs)
    small = {name: error for name, error in errors.items() if error <= MAX_ERROR}
    kept = frozenset(errors.keys() - small.keys())
    return Calibration(ranges.inputs, ranges.outputs, kept, max(small.values(), default=0.0))


def find_errors(model: Network, found: Calibration, runs: Iterable[Run]) -> dict[str, float]:
    """The largest relative error of each part alone, for the same inputs, by name; infinite for one
    that the images do not reach."""
    parts = dict(_parts(model, found))
    errors: dict[str, float] = {}

    def compare(name: str, part: nn.Module, source: Tensor, output: Tensor) -> None:
        # A block may overwrite its input.
        result = part(source.clone())
        if result.dtype == torch.uint8:
            result = found.outputs[name].dequantize(result, torch.float32)
        error = float((result - output).norm() / output.norm().clamp(min=1e-12))
        errors[name] = max(errors.get(name, 0.0), error)

    visits = {name: partial(compare, name, part) for name, part in parts.items()}
    _visit(model, visits, runs)
    return dict.fromkeys(parts, math.inf) | errors


def _find_ranges(model: Network, runs: Iterable[Run]) -> Calibration:
    fpn = _pyramid(model)
    outputs = [f"{RESNET}.{path}" for path, _ in resnet_units(resnet_of(fpn))]
    inner = [
        f"{RESNET}.{path}.{child}"
        for path, unit in resnet_units(resnet_of(fpn))
        for child in INNER
        if getattr(unit, child, None) is not None
    ]
    inputs = [f"{RESNET}.stem", *_pyramid_outputs(fpn), *_head_layers(model)]
    seen_inputs = {name: Observer() for name in inputs}
    seen_outputs = {name: Observer() for name in (*outputs, *inner)}

    def observe(name: str, source: Tensor, output: Tensor) -> None:
        if name in seen_inputs:
            seen_inputs[name].observe(source)
        if name in seen_outputs:
            seen_outputs[name].observe(output)

    visits = {name: partial(observe, name) for name in (*inputs, *outputs, *inner)}
    _visit(model, visits, runs)
    return Calibration(
        # All values of an image count.
        {name: each.choose(clip=name != f"{RESNET}.stem") for name, each in seen_inputs.items()},
        {name: each.choose() for name, each in seen_outputs.items()},
    )


def _visit(model: Network, visits: Mapping[str, Visit], runs: Iterable[Run]) -> None:
    """Call a function with the input and the output of each module that is named."""

    def call(visit: Visit, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        visit(arguments[0], output)

    with ExitStack() as hooks, torch.inference_mode():
        for name, visit in visits.items():
            handle = model.get_submodule(name).register_forward_hook(partial(call, visit))
            hooks.callback(handle.remove)
        for run in runs:
            run()


def _parts(model: Network, found: Calibration) -> Iterator[tuple[str, nn.Module]]:
    """Each part in integers, by the name of the module that it stands for."""
    fpn, float32 = _pyramid(model), torch.float32
    source = found.inputs[f"{RESNET}.stem"]
    ends: dict[str, Quantization] = {}
    for path, unit in resnet_units(resnet_of(fpn)):
        name = f"{RESNET}.{path}"
        if is_quantizable(unit):
            yield name, make_unit(name, unit, source, found, float32)
        ends[path.partition(".")[0]] = source = found.outputs[name]
    for level, stage in fpn.stages.items():
        lateral = fpn.get_submodule(f"fpn_lateral{level}")
        yield f"backbone.fpn_lateral{level}", _alone(lateral, ends[stage])
    for name in (*_pyramid_outputs(fpn), *_head_layers(model)):
        yield name, _alone(model.get_submodule(name), found.inputs[name])


def _alone(layer: nn.Module, source: Quantization) -> Int8Conv2d:
    assert isinstance(layer, nn.Conv2d)
    return Int8Conv2d(layer, source, None)


def _head_targets(model: Network, found: Calibration) -> Iterator[tuple[str, Quantization | None]]:
    """The layers of the heads that are quantized, with the quantization of their output: integers
    for a layer that is quantized too and follows directly."""
    chosen = [path for path in _head_layers(model) if path not in found.kept]
    for path in chosen:
        parent, _, name = path.rpartition(".")
        module = model.get_submodule(parent)
        following = None
        if isinstance(module, nn.Sequential):
            names = [each for each, _ in module.named_children()]
            following = dict(pairwise(names)).get(name)
        next_path = f"{parent}.{following}"
        yield path, found.inputs[next_path] if following and next_path in chosen else None


def _head_layers(model: Network) -> list[str]:
    """Paths of the heads' 3x3 convolutions without a norm that depends on the image."""
    return [
        path
        for path, layer in model.named_modules()
        if type(layer) is Conv2d
        and not path.startswith("backbone.")
        and layer.kernel_size == (3, 3)
        and layer.norm is None
    ]


def _pyramid_outputs(fpn: FPN) -> list[str]:
    return [f"backbone.fpn_output{level}" for level in fpn.stages]


def _pyramid(model: Network) -> FPN:
    backbone = model.backbone
    if not isinstance(backbone, FPN) or not isinstance(backbone.bottom_up, ResNet):
        kind = type(backbone).__name__
        if isinstance(backbone, FPN):
            kind = f"{type(backbone.bottom_up).__name__} with FPN"
        raise ConfigError(
            f"precision int8 is for a ResNet with FPN, and the model's backbone is a {kind}; use "
            "bf16 or fp32"
        )
    norms = [getattr(each, "norm", None) for _, each in backbone.named_children()]
    if any(norms):
        raise ConfigError("precision int8 is for a pyramid without group norm; use bf16 or fp32")
    return backbone
