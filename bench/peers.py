"""The backbone and the heads of Mask R-CNN R50-FPN on a CPU beside OpenVINO and ONNX Runtime: equal
weights, in alternation in one process, with the difference of the outputs to float32."""

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bench.arguments import parser_of, seconds, whole
from bench.comparison import Comparison, run_comparison, write_results
from bench.layers import profile
from bench.parts import BACKBONE, Part, parts_of
from bench.report import Table, progress, write_report
from bench.workloads import R50_FPN, image_of
from d2serve.errors import CommandError
from d2serve.model import int8
from d2serve.model.meta_arch import GeneralizedRCNN
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
    assert isinstance(network, GeneralizedRCNN)
    images = network._to_batch([torch.from_numpy(image_of(size_wh)).permute(2, 0, 1)])
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        parts = parts_of(network, images)
        if given.layers:
            exported = _export(parts[0], Path(folder))
            tables = [
                _profile(each, network, parts[0], exported, given.threads)
                for each in given.precisions
                if each != "int8"
            ]
            write_report(given.output / "layers", tables, {}, notes=[_about(images)])
            return 0
        comparisons = _comparisons(network, parts, given.precisions, Path(folder), given.threads)
        results = (
            run_comparison(each, given.rounds, given.seconds, partial(_show, each))
            for each in comparisons
        )
        write_results(given.output / "peers", results, [_about(images)])
    return 0


def _about(images: Tensor) -> str:
    height, width = images.shape[-2:]
    return f"an image of {height}x{width}"


def _show(comparison: Comparison, done: int) -> None:
    progress(f"{comparison.stage}, {comparison.case}: round {done}")


def _profile(
    precision: str, network: GeneralizedRCNN, backbone: Part, exported: Path, threads: int
) -> Table:
    packed = _packed(precision, network, backbone).backbone
    request = _request(precision, exported, backbone, threads, {"PERF_COUNT": True})
    [images] = backbone.inputs_in(PRECISIONS[precision])
    return profile(precision, network.backbone, packed, images, request)


def _comparisons(
    network: GeneralizedRCNN,
    parts: Sequence[Part],
    precisions: Sequence[str],
    folder: Path,
    threads: int,
) -> Iterator[Comparison]:
    exported = [_export(part, folder) for part in parts]
    exact = [[each.numpy() for each in part.exported(*part.inputs)] for part in parts]
    for precision in precisions:
        progress(f"{precision}: preparing")
        packed = _packed(precision, network, parts[0])
        for part, path, outputs in zip(parts, exported, exact, strict=True):
            # The heads have no int8.
            if precision != "int8" or part.name == BACKBONE:
                yield _comparison(precision, packed, part, path, outputs, threads)


def _comparison(
    precision: str,
    packed: GeneralizedRCNN,
    part: Part,
    exported: Path,
    exact: Sequence[Array],
    threads: int,
) -> Comparison:
    inputs = part.inputs_in(torch.float32 if precision == "int8" else PRECISIONS[precision])
    runs: dict[str, Run] = {OURS: lambda: part.run(packed, inputs)}
    runs[OPENVINO] = _openvino(precision, exported, part, threads)
    if precision == "fp32":
        runs[ONNX_RUNTIME] = _onnx_runtime(exported, part, threads)
    notes = [f"{name}: {_difference(run(), exact)}" for name, run in runs.items()]
    return Comparison(part.name, precision, runs, R50_FPN.name, note="; ".join(notes))


def _export(part: Part, folder: Path) -> Path:
    path = folder / f"{part.name}.onnx"
    with torch.inference_mode(mode=False):
        inputs = tuple(each.clone() for each in part.inputs)
        torch.onnx.export(
            part.exported, inputs, str(path), dynamo=False, opset_version=TRACED_OPSET
        )
    return path


def _difference(outputs: Outputs, exact: Sequence[Array]) -> str:
    """Of all outputs to float32: the largest, and of the norms."""
    found = [np.asarray(each, dtype=np.float32) for each in map(_array, outputs)]
    pairs = list(zip(found, exact, strict=True))
    largest = max(float(np.abs(one - other).max()) for one, other in pairs)
    relative = max(
        float(np.linalg.norm(one - other) / np.linalg.norm(other)) for one, other in pairs
    )
    return f"largest difference {largest:.3g}, relative {relative:.2%}"


def _array(output: Any) -> Any:
    return output.float().numpy() if isinstance(output, Tensor) else output


def _packed(precision: str, network: GeneralizedRCNN, backbone: Part) -> GeneralizedRCNN:
    model, dtype = copy.deepcopy(network), PRECISIONS[precision]
    if precision == "int8":
        found = int8.calibrate(network, [lambda: backbone.run(network, backbone.inputs)])
        int8.quantize(model, found, dtype)
    optimize(model, dtype)
    pack(model)
    return model


def _arrays(part: Part) -> list[npt.NDArray[Any]]:
    return [each.contiguous().numpy() for each in part.inputs]


def _openvino(precision: str, exported: Path, part: Part, threads: int) -> Run:
    request, arrays = _request(precision, exported, part, threads, {}), _arrays(part)

    def run() -> Outputs:
        request.infer(arrays, share_inputs=True, share_outputs=True)
        return [each.data for each in request.output_tensors]

    return run


def _request(
    precision: str, exported: Path, part: Part, threads: int, options: Mapping[str, Any]
) -> Any:
    """OpenVINO's model with these options and inputs."""
    import nncf
    import openvino

    core, arrays = openvino.Core(), _arrays(part)
    model = core.read_model(exported)
    if precision == "int8":
        nncf.set_log_level(40)
        model = nncf.quantize(model, nncf.Dataset(arrays), subset_size=1)
    hint = "bf16" if precision == "int8" else {"fp32": "f32"}.get(precision, precision)
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, **options}
    # Pinned, the threads of torch would share the core of the one that calls it.
    settings |= {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    for index, array in enumerate(arrays):
        request.set_input_tensor(index, openvino.Tensor(array))
    return request


def _onnx_runtime(exported: Path, part: Part, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads would occupy the cores of the next implementation for a while.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        str(exported), options, providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_inputs()]
    feed = dict(zip(names, _arrays(part), strict=True))
    return lambda: session.run(None, feed)
