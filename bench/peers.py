"""The backbone of Mask R-CNN R50-FPN on a CPU beside OpenVINO and ONNX Runtime: equal weights, in
alternation in one process, with the difference of the outputs to float32."""

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.arguments import parser_of, seconds, whole
from bench.comparison import Comparison, run_comparison, write_results
from bench.layers import profile
from bench.report import Table, progress, write_report
from bench.workloads import R50_FPN, image_of
from d2serve.errors import CommandError
from d2serve.model import int8
from d2serve.model.fpn import FPN
from d2serve.model.network import Network
from d2serve.model.optimize import optimize
from d2serve.model.packed_conv import pack
from d2serve.serving.process import enable_huge_pages, keep_freed_memory

TRACED_OPSET = 17
OURS, OPENVINO, ONNX_RUNTIME = "d2serve", "OpenVINO", "ONNX Runtime"
PACKAGES = ("openvino", "onnxruntime", "onnx", "nncf")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}
SIZE_WH, QUICK_SIZE_WH = (1088, 800), (96, 64)
Array = npt.NDArray[np.float32]
Outputs = Sequence[Any]
Run = Callable[[], Outputs]


class Exported(nn.Module):
    """A pyramid for the export to ONNX, which loses additions in place to views."""

    def __init__(self, fpn: FPN) -> None:
        super().__init__()
        self.fpn = fpn

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Float[N, 3, H, W] -> for each level Float[N, C, H/s, W/s], p2 first."""
        maps, levels, above = self.fpn.bottom_up(images), list[Tensor](), None
        for level, name in reversed(self.fpn.stages.items()):
            fused = self.fpn.get_submodule(f"fpn_lateral{level}")(maps[name])
            if above is not None:
                fused = fused + F.interpolate(above, scale_factor=2.0, mode="nearest")
            levels.insert(0, self.fpn.get_submodule(f"fpn_output{level}")(fused))
            above = fused
        assert self.fpn.top_block is not None
        named = {**maps, **dict(zip(self.fpn.channels, levels, strict=False))}
        return (*levels, *self.fpn.top_block(named[self.fpn.top_source]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Time each precision and write peers.json, .md and .png."""
    parser = parser_of("peers", __doc__)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=[*PRECISIONS])
    parser.add_argument("--rounds", type=whole, default=15, help="of each comparison")
    parser.add_argument("--seconds", type=seconds, default=120.0, help="of each comparison")
    parser.add_argument("--threads", type=whole, default=torch.get_num_threads(), help="of each")
    parser.add_argument("--layers", action="store_true", help="where the time goes, not in int8")
    parser.add_argument("--quick", action="store_true", help="a small image: a trial")
    given = parser.parse_args(arguments)
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise CommandError(f"{', '.join(missing)}: not installed; pip install 'd2serve[peers]'")
    # As in a worker, and for all runtimes.
    enable_huge_pages()
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    size_wh = QUICK_SIZE_WH if given.quick else SIZE_WH
    network = optimize(R50_FPN.build()).eval()
    images = network._to_batch([torch.from_numpy(image_of(size_wh)).permute(2, 0, 1)])
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "backbone.onnx"
        fpn = network.backbone
        assert isinstance(fpn, FPN)
        torch.onnx.export(
            Exported(fpn), (images,), str(exported), dynamo=False, opset_version=TRACED_OPSET
        )
        with torch.inference_mode():
            exact = [each.numpy() for each in _by_level(fpn(images))]
        if given.layers:
            profiles = (
                _profile(precision, network, exported, images, given.threads)
                for precision in given.precisions
                if precision != "int8"
            )
            with torch.inference_mode():
                write_report(given.output / "layers", list(profiles), {}, notes=[_about(images)])
            return 0
        comparisons = (
            _comparison(precision, network, exported, images, exact, given.threads)
            for precision in given.precisions
        )
        results = (
            run_comparison(each, given.rounds, given.seconds, partial(_show, each.case))
            for each in comparisons
        )
        with torch.inference_mode():
            write_results(given.output / "peers", results, [_about(images)])
    return 0


def _about(images: Tensor) -> str:
    height, width = images.shape[-2:]
    return f"backbone, {height}x{width}"


def _profile(
    precision: str, network: Network, exported: Path, images: Tensor, threads: int
) -> Table:
    packed = _packed(precision, network, images).backbone
    request = _request(precision, exported, images, threads, {"PERF_COUNT": True})
    return profile(precision, network.backbone, packed, images.to(PRECISIONS[precision]), request)


def _show(case: str, done: int) -> None:
    progress(f"{case}: round {done}")


def _comparison(
    precision: str,
    network: Network,
    exported: Path,
    images: Tensor,
    exact: Sequence[Array],
    threads: int,
) -> Comparison:
    progress(f"{precision}: preparing")
    runs: dict[str, Run] = {OURS: _ours(precision, network, images)}
    runs[OPENVINO] = _openvino(precision, exported, images, threads)
    if precision == "fp32":
        runs[ONNX_RUNTIME] = _onnx_runtime(exported, images, threads)
    notes = [f"{name}: {_difference(run(), exact)}" for name, run in runs.items()]
    return Comparison("backbone", precision, runs, R50_FPN.name, note="; ".join(notes))


def _by_level(levels: Mapping[str, Tensor]) -> list[Tensor]:
    return [levels[name] for name in sorted(levels)]


def _difference(outputs: Outputs, exact: Sequence[Array]) -> str:
    """Of all levels to float32: the largest, and of the norms."""
    found = [np.asarray(each, dtype=np.float32) for each in map(_array, outputs)]
    pairs = list(zip(found, exact, strict=True))
    largest = max(float(np.abs(one - other).max()) for one, other in pairs)
    relative = max(
        float(np.linalg.norm(one - other) / np.linalg.norm(other)) for one, other in pairs
    )
    return f"largest difference {largest:.3g}, relative {relative:.2%}"


def _array(output: Any) -> Any:
    return output.float().numpy() if isinstance(output, Tensor) else output


def _ours(precision: str, network: Network, images: Tensor) -> Run:
    backbone = _packed(precision, network, images).backbone
    batch = images if precision == "int8" else images.to(PRECISIONS[precision])
    return lambda: _by_level(backbone(batch))


def _packed(precision: str, network: Network, images: Tensor) -> Network:
    model, dtype = copy.deepcopy(network), PRECISIONS[precision]
    if precision == "int8":
        found = int8.calibrate(network, [lambda: network.backbone(images)])
        int8.quantize(model, found, dtype)
    optimize(model, dtype)
    pack(model)
    return model


def _openvino(precision: str, exported: Path, images: Tensor, threads: int) -> Run:
    request, array = _request(precision, exported, images, threads, {}), images.contiguous().numpy()

    def run() -> Outputs:
        request.infer([array], share_inputs=True, share_outputs=True)
        return [each.data for each in request.output_tensors]

    return run


def _request(
    precision: str, exported: Path, images: Tensor, threads: int, options: Mapping[str, Any]
) -> Any:
    """OpenVINO's model with these options and an input."""
    import nncf
    import openvino

    core, array = openvino.Core(), images.contiguous().numpy()
    model = core.read_model(exported)
    model.reshape(list(images.shape))
    if precision == "int8":
        nncf.set_log_level(40)
        model = nncf.quantize(model, nncf.Dataset([array]), subset_size=1)
    hint = "bf16" if precision == "int8" else {"fp32": "f32"}.get(precision, precision)
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, **options}
    # Pinned, the threads of torch would share the core of the one that calls it.
    settings |= {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(array))
    return request


def _onnx_runtime(exported: Path, images: Tensor, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads would occupy the cores of the next implementation for a while.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        str(exported), options, providers=["CPUExecutionProvider"]
    )
    feed: Mapping[str, Array] = {session.get_inputs()[0].name: images.contiguous().numpy()}
    return lambda: session.run(None, feed)
