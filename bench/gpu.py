"""`make bench-gpu`: forward pass, whole requests and HTTP on a CUDA GPU, in less than 8 minutes.
Baselines: torchvision's eager Mask R-CNN R50-FPN with autocast, and detectron2, one image at a
time. Packages that are not installed are left out."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from bench.arguments import parser_of
from bench.baselines.servers import our_archive, r50, shapes, torchserve, torchvision_weights
from bench.baselines.torchvision_model import MaskRCNNResNet50FPN
from bench.comparison import OURS, Calls, Comparison, Result, Series
from bench.loadgen.generator import ClosedLoop
from bench.loadgen.load import image_requests, measure
from bench.report import progress
from bench.stages.command import run_stages
from bench.stages.images import decoding
from bench.stages.requests import requests
from bench.workloads import Scale, encode_image, image_of, quick_scale
from d2serve.detector.cuda_graphs import enable_cuda_graphs
from d2serve.model.preprocessing import resize_image

NO_GPU = 2
# Becomes 800x1344 inside the network, by the limit on the longer side and padding.
IMAGE_WH = (1333, 800)
GRAPHS, TORCHVISION = f"{OURS}, CUDA graphs", "torchvision eager"
NOTE = "torchvision also resizes, and pastes its masks into the image"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
BATCHES, TORCHVISION_BATCHES, CLIENTS = (1, 2, 4, 8, 16), (1, 8), (16, 32)
MAX_ROUNDS, SECONDS, HTTP_SECONDS = 200, 6.0, 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write gpu.json, .md and .png; 2 without a GPU."""
    parser = parser_of("gpu", __doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="of the network")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a trial of the script")
    parser.add_argument("--without-http", action="store_true", help="no TorchServe")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("bench gpu needs a CUDA GPU, and torch finds none", file=sys.stderr)
        return NO_GPU
    device = torch.device(given.device)
    precisions = ("fp32", "bf16", "fp16") if given.device == "cuda" else ("fp32", "bf16")
    scale = Scale(device, precisions, image_wh=IMAGE_WH, batches=(1, 8, 16))
    scale = quick_scale(device, precisions) if given.quick else scale
    stages: list[Any] = [forward, requests, decoding]
    notes = [tf32()]
    if given.without_http or not find_spec("ts"):
        notes.append("no HTTP: --without-http, or torchserve is not installed")
    else:
        stages.append(http)
    seconds = 0.2 if given.quick else SECONDS
    run_stages(stages, scale, MAX_ROUNDS, seconds, given.output / "gpu", notes)
    return 0


def tf32() -> str:
    """State of TF32, which decides about the speed of fp32 on a GPU."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    state = f"{'on' if matmul else 'off'} in matrix products, {'on' if cudnn else 'off'} in cuDNN's"
    return f"TF32 in fp32, for all implementations: {state} convolutions"


def forward(scale: Scale) -> Iterator[Comparison]:
    """The network on images that are on the device, resized already for d2serve; and from images on
    the host to detections, as in a worker."""
    image, eager = image_of(scale.image_wh), torchvision_model(scale)
    pixels = torch.from_numpy(image).permute(2, 0, 1).float().div(255).to(scale.device)
    size_hw = (image.shape[0], image.shape[1])
    for precision in scale.precisions:
        detector = scale.detector(scale.model, precision)
        networks = {OURS: detector.model}
        if scale.device.type == "cuda":
            networks[GRAPHS] = scale.detector(scale.model, precision).model
            enable_cuda_graphs(networks[GRAPHS], scale.device)
        resized = resize_image(image, networks[OURS].config.input).to(scale.device)
        for batch in scale.batches if scale.quick else BATCHES:
            calls: Calls = {
                name: partial(network, [resized] * batch, [size_hw] * batch)
                for name, network in networks.items()
            }
            if batch in scale.batches:
                calls["d2serve, from pixels"] = partial(detector.detect, [image] * batch)
            if batch in TORCHVISION_BATCHES:
                calls[TORCHVISION] = partial(run_torchvision, eager, [pixels] * batch, precision)
            facts = (f"{precision}, batch {batch}", calls)
            yield Comparison("forward", *facts, scale.model.name, batch, NOTE)


def torchvision_model(scale: Scale) -> Any:
    """torchvision's eager maskrcnn_resnet50_fpn with seeded weights, at small sizes in a trial."""
    model = MaskRCNNResNet50FPN().eval()
    model.load_state_dict(torchvision_weights())
    if scale.quick:
        model.transform.min_size, model.transform.max_size = (128,), 256
    return model.to(scale.device)


def run_torchvision(model: Any, images: Sequence[torch.Tensor], precision: str) -> object:
    """Run it as its users do: in fp32, or with autocast to half precision."""
    dtype, device = DTYPES.get(precision), images[0].device.type
    with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype is not None):
        return model(list(images))


def http(scale: Scale) -> Iterator[Result]:
    """JPEGs in, JSON with RLE out, by a server with the defaults of `make archive`."""
    if scale.device.type == "cuda":
        torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory(prefix="d2serve-gpu-") as temporary:
        folder = Path(temporary)
        image = folder / "image.jpg"
        image.write_bytes(encode_image(image_of(scale.image_wh)))
        model = (shapes if scale.quick else r50)(folder)._replace(images=(image,))
        archive = our_archive(model, "auto", folder, workers={})
        with torchserve(archive, folder) as url:
            for clients in (2, 4) if scale.quick else CLIENTS:
                progress(f"HTTP: {clients} clients")
                traffic, sent = ClosedLoop(clients), image_requests(model.images)
                load = measure(url, sent, traffic, 2.0 if scale.quick else HTTP_SECONDS)
                series = (Series(OURS, (load.requests_per_s,)),)
                latency = {f"p{name}": round(value) for name, value in load.latency_ms.items()}
                note = f"ms: {latency}; {load.failures} of {load.requests} failed"
                facts = ("HTTP", f"auto, {clients} clients", model.name, 1, note, series)
                yield Result(*facts, unit="requests/s", higher_is_better=True)
