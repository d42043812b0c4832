"""`make bench-gpu`: the network, JPEG decoding, whole requests and HTTP on a CUDA GPU.
Baselines: torchvision's eager Mask R-CNN R50-FPN with autocast, and detectron2, one image at a
time. Packages that are not installed are left out; see scripts/gpu_check.sh for all of it at
once."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from bench.arguments import parser_of
from bench.comparison import Comparison, Result
from bench.gpu.http import http
from bench.gpu.network import compiled, forward
from bench.gpu.profile import write_profile
from bench.stages.command import run_stages
from bench.stages.images import decoding, masks
from bench.stages.requests import requests
from bench.workloads import Scale, quick_scale

NO_GPU = 2
# Becomes 800x1344 inside the network, by the limit on the longer side and padding.
IMAGE_WH = (1333, 800)
PRECISIONS = ("bf16", "fp16", "fp32")
BATCHES = (1, 8, 32)
STAGES: Mapping[str, Callable[[Scale], Iterator[Comparison | Result]]] = {
    "forward": forward,
    "requests": requests,
    "http": http,
    "decode": decoding,
    "masks": masks,
    "compile": compiled,
}
MAX_ROUNDS, SECONDS = 100, 4.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write gpu-*.json, .md and .png and the profile; 2 without a GPU."""
    parser = parser_of("gpu", __doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="of the network")
    parser.add_argument("--only", nargs="+", choices=(*STAGES, "profile"), help="default: all")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of one comparison")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a trial of the script")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("bench gpu needs a CUDA GPU, and torch finds none", file=sys.stderr)
        return NO_GPU
    scale = scale_of(torch.device(given.device), given.precisions, given.batches, given.quick)
    seconds = 0.2 if given.quick else given.seconds
    for name in given.only or (*STAGES, "profile"):
        path = given.output / f"gpu-{name}"
        if name == "profile":
            write_profile(scale, path.with_suffix(".txt"))
        else:
            run_stages([STAGES[name]], scale, MAX_ROUNDS, seconds, path, [tf32()])
    return 0


def scale_of(
    device: torch.device, precisions: Sequence[str], batches: Sequence[int], quick: bool
) -> Scale:
    """Models, images and batch sizes; on a CPU without fp16, which it does not serve."""
    chosen = tuple(each for each in precisions if device.type == "cuda" or each != "fp16")
    if quick:
        return quick_scale(device, chosen)
    return Scale(device, chosen, image_wh=IMAGE_WH, batches=tuple(batches))


def tf32() -> str:
    """State of TF32, which decides about the speed of fp32 on a GPU."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    state = f"{'on' if matmul else 'off'} in matrix products, {'on' if cudnn else 'off'} in cuDNN's"
    return f"TF32 in fp32, for all implementations: {state} convolutions"
