"""The forward pass beside its baselines, with and without CUDA graphs, and compiled."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from bench import upstream
from bench.baselines.servers import torchvision_weights
from bench.baselines.torchvision_model import MaskRCNNResNet50FPN
from bench.comparison import DETECTRON2, OURS, Calls, Comparison
from bench.workloads import Scale, image_of
from d2serve.detector.cuda_graphs import enable_cuda_graphs
from d2serve.model.preprocessing import resize_image

GRAPHS, TORCHVISION = f"{OURS}, CUDA graphs", "torchvision eager"
FROM_PIXELS = f"{OURS}, from pixels"
NOTE = "torchvision also resizes, and pastes its masks into the image; detectron2 also resizes"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Larger batches of the baselines, which have no more throughput, would take the time of the rest.
BASELINE_BATCH = 8


def forward(scale: Scale) -> Iterator[Comparison]:
    """The network on images that are on the device, resized already for d2serve; and from images on
    the host to detections, as in a worker."""
    image, eager = image_of(scale.image_wh), torchvision_model(scale)
    theirs = upstream.Upstream(scale.model, scale.device) if upstream.installed() else None
    pixels = torch.from_numpy(image).permute(2, 0, 1).float().div(255).to(scale.device)
    size_hw = (image.shape[0], image.shape[1])
    for precision in scale.precisions:
        detector = scale.detector(scale.model, precision)
        networks = {OURS: detector.model}
        if scale.device.type == "cuda":
            networks[GRAPHS] = scale.detector(scale.model, precision).model
            enable_cuda_graphs(networks[GRAPHS], scale.device)
        resized = resize_image(image, networks[OURS].config.input).to(scale.device)
        for batch in scale.batches:
            calls: Calls = {
                name: partial(network, [resized] * batch, [size_hw] * batch)
                for name, network in networks.items()
            }
            calls[FROM_PIXELS] = partial(detector.detect, [image] * batch)
            if batch <= (1 if scale.quick else BASELINE_BATCH):
                calls[TORCHVISION] = partial(run_torchvision, eager, [pixels] * batch, precision)
            if batch == 1 and theirs is not None:
                calls[DETECTRON2] = partial(theirs.detect, image)
            facts = (f"{precision}, batch {batch}", calls)
            yield Comparison("forward", *facts, scale.model.name, batch, NOTE)


def compiled(scale: Scale) -> Iterator[Comparison]:
    """The backbone by torch.compile beside the eager one; not on a CPU, whose packed layers are our
    own."""
    if scale.device.type == "cpu":
        return
    image = image_of(scale.image_wh)
    precision = scale.precisions[0]
    model = scale.detector(scale.model, precision).model
    resized = resize_image(image, model.config.input)
    dtype = next(model.parameters()).dtype
    fast = torch.compile(model.backbone)
    for batch in scale.batches[:2]:
        pixels = resized[None].expand(batch, -1, -1, -1).to(scale.device, dtype)
        # Multiples of 32, which FPN needs.
        height, width = (-(-side // 32) * 32 for side in pixels.shape[2:])
        padded = pixels.new_zeros((batch, pixels.shape[1], height, width))
        padded[:, :, : pixels.shape[2], : pixels.shape[3]] = pixels
        padded = padded.contiguous(memory_format=torch.channels_last)
        calls: Calls = {
            OURS: partial(run_inference, model.backbone, padded),
            "torch.compile": partial(run_inference, fast, padded),
        }
        yield Comparison("backbone", f"{precision}, batch {batch}", calls, scale.model.name, batch)


def run_inference(network: Any, batch: torch.Tensor) -> object:
    """Run a network without recording gradients."""
    with torch.inference_mode():
        return network(batch)


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
