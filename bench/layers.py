"""Times of the backbone's layers beside OpenVINO's counters: `python -m bench peers --layers`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from statistics import median
from time import perf_counter
from typing import Any

from torch import Tensor, nn

from bench.report import Table
from d2serve.model.packed_conv import PackedConv2d
from d2serve.model.packed_stem import PackedStem
from d2serve.model.winograd import WinogradConv2d

TIMED = (PackedStem, PackedConv2d, WinogradConv2d, nn.Conv2d)
# What d2serve does between convolutions; OpenVINO's layers are named.
ADDITIONS, UPSAMPLING, REORDERS = "additions and the coarsest level", "Resize", "Reorder"
COLUMNS = (
    "layers",
    "GFLOP",
    "d2serve ms",
    "GFLOP/s",
    "OpenVINO ms",
    "GFLOP/s",
    "OpenVINO's kernel",
)
# Rounds of a profile; its times are their medians.
ROUNDS = 7


@dataclass
class Group:
    """Layers of a kind: operations in GFLOP, seconds of each implementation, OpenVINO's kernels."""

    gflop: float = 0.0
    ours: float = 0.0
    openvino: float = 0.0
    kernels: set[str] = field(default_factory=set)

    def row(self, name: str) -> tuple[str, ...]:
        """Cells below COLUMNS; speeds only of layers that compute something."""
        cells = [f"{self.gflop:.1f}" if self.gflop else ""]
        for seconds in (self.ours, self.openvino):
            speed = f"{self.gflop / seconds:.0f}" if self.gflop and seconds else ""
            cells += [f"{seconds * 1e3:.1f}" if seconds else "", speed]
        return (name, *cells, ", ".join(sorted(self.kernels)))


def profile(case: str, plain: nn.Module, packed: nn.Module, images: Tensor, request: Any) -> Table:
    """Table of groups of layers.

    Args:
        case: precision.
        plain: the backbone before its layers are packed, in float32.
        packed: the same one, packed.
        images: Float[N, C, H, W] in the type of `packed`.
        request: OpenVINO's, with counters; it has the input.
    """
    gflop = operations(plain, images.float())
    groups: dict[str, Group] = {}
    for name, value in gflop.items():
        groups.setdefault(group_of(name), Group()).gflop += value
    for name, seconds in our_times(packed, images).items():
        groups.setdefault(group_of(name), Group()).ours += seconds
    for name, seconds, kernel in filter(itemgetter(1), openvino_times(request)):
        group = groups.setdefault(group_of(name), Group())
        group.openvino += seconds
        if kernel and name in gflop:
            group.kernels.add(kernel)
    summed = ("gflop", "ours", "openvino")
    total = Group(*(sum(getattr(each, key) for each in groups.values()) for key in summed))
    rows = [groups[name].row(name) for name in sorted(groups)]
    return Table(f"{case}, medians of {ROUNDS}", COLUMNS, [*rows, total.row("total")])


def group_of(layer: str) -> str:
    """Stage and kind of a layer, e.g. "res2 conv1" for "bottom_up.res2.1.conv1"."""
    *path, kind = layer.removeprefix("bottom_up.").split(".")
    return f"{path[0]} {kind}" if path and path[0] != "stem" else (path or [kind])[0]


def operations(fpn: nn.Module, images: Tensor) -> dict[str, float]:
    """GFLOP of the direct algorithm by the convolution's name."""
    found: dict[str, float] = {}

    def hook(name: str) -> Callable[..., None]:
        def count(layer: nn.Conv2d, _: object, output: Tensor) -> None:
            found[name] = 2e-9 * layer.weight[0].numel() * output.numel()

        return count

    layers = [each for each in fpn.named_modules() if isinstance(each[1], nn.Conv2d)]
    hooks = [layer.register_forward_hook(hook(name)) for name, layer in layers]
    fpn(images)
    for each in hooks:
        each.remove()
    return found


def our_times(packed: nn.Module, images: Tensor) -> dict[str, float]:
    """Median seconds by layer, and of the rest under ADDITIONS."""
    taken: dict[str, list[float]] = {}
    layers = {name: each for name, each in packed.named_modules() if isinstance(each, TIMED)}
    outer = {name: each for name, each in layers.items() if name.rpartition(".")[0] not in layers}
    for name, layer in outer.items():
        for method in ("forward", "add_relu"):
            if hasattr(layer, method):
                setattr(layer, method, _timed(getattr(layer, method), taken.setdefault(name, [])))
    whole = _timed(packed, taken.setdefault("", []))
    for _ in range(ROUNDS + 1):
        whole(images)
    medians = {name: median(values[1:]) for name, values in taken.items() if values}
    for layer in outer.values():
        for method in ("forward", "add_relu"):
            vars(layer).pop(method, None)
    rest = medians.pop("") - sum(medians.values())
    return {**medians, ADDITIONS: rest}


def _timed(call: Callable[..., Any], taken: list[float]) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        start = perf_counter()
        output = call(*arguments)
        taken.append(perf_counter() - start)
        return output

    return timed


def openvino_times(request: Any) -> Iterator[tuple[str, float, str]]:
    """Name as in the network, median seconds and kernel of each layer."""
    taken: dict[str, list[float]] = {}
    facts: Mapping[str, tuple[str, str]] = {}
    for _ in range(ROUNDS + 1):
        request.infer()
        for each in request.profiling_info:
            taken.setdefault(each.node_name, []).append(each.real_time.total_seconds())
        facts = {
            each.node_name: (each.node_type, each.exec_type) for each in request.profiling_info
        }
    for node, values in taken.items():
        kind, kernel = facts[node]
        yield layer_of(node, kind), median(values[1:]), kernel


def layer_of(node: str, kind: str) -> str:
    """The network's name of OpenVINO's node, e.g. "bottom_up.res2.0.conv1" for
    "/bottom_up/res2/res2.0/conv1/Conv/WithoutBiases"."""
    if kind == "Reorder":
        return REORDERS
    path = node.removesuffix("/WithoutBiases").split("/")[1:-1]
    # A block's name contains that of its stage.
    inner = [*path[1:], ""][: len(path)]
    kept = [each for each, later in zip(path, inner, strict=True) if f"{each}." not in later]
    return ".".join(kept) or UPSAMPLING
