"""Rates of the network alone, and of whole requests without HTTP."""

from collections.abc import Iterator
from functools import partial

import torch

from bench import upstream
from bench.gpu.plan import Plan
from bench.gpu.rate import Rate, measure
from bench.scale import picture_of
from bench.stages.decode import encoded
from bench.stages.requests import ours, pipeline_of
from handler.detector.graphs import take_graphs
from handler.rcnn.image_batch import resize_picture
from handler.rcnn.network import Network

GRAPHED = "forward, backbone as CUDA graphs"
FORWARD, DETECT, PIPELINE = "forward", "pictures to detections", "JPEG to RLE"
PREDICTOR = "detectron2's predictor, one by one"
PREDICTOR_PIPELINE = "detectron2, JPEG to RLE, one by one"


def forward_rates(plan: Plan) -> Iterator[Rate]:
    """The network on resized pictures that lie on the device already; on a GPU its backbone as
    CUDA graphs too."""
    for precision in plan.precisions:
        network = plan.scale.detector(plan.model, precision).model
        yield from _forward_rates(FORWARD, network, precision, plan)
        if plan.device.type == "cuda":
            take_graphs(network, plan.device)
            yield from _forward_rates(GRAPHED, network, precision, plan)


def _forward_rates(what: str, network: Network, precision: str, plan: Plan) -> Iterator[Rate]:
    picture = picture_of(plan.picture_wh)
    image = resize_picture(picture, network.config.input).to(plan.device)
    size_hw = (picture.shape[0], picture.shape[1])
    for batch in plan.batches:
        run = partial(network, [image] * batch, [size_hw] * batch)
        yield measure(what, precision, batch, run, plan)


def pipeline_rates(plan: Plan, precision: str) -> Iterator[Rate]:
    """From pixels, then from JPEGs to JSON, as a worker does it."""
    detector = plan.scale.detector(plan.model, precision)
    pipeline = pipeline_of(detector, plan.model.name)
    picture = picture_of(plan.picture_wh)
    for batch in plan.pipeline_batches:
        run = partial(detector.detect, [picture] * batch)
        yield measure(DETECT, precision, batch, run, plan)
    body = encoded(picture, "JPEG")
    for batch in plan.pipeline_batches:
        yield measure(PIPELINE, precision, batch, ours(pipeline, [body] * batch).run, plan)


def upstream_rates(plan: Plan) -> Iterator[Rate]:
    """Detectron2 on the same pictures; nothing where it is not installed."""
    if not upstream.installed():
        return
    picture = picture_of(plan.picture_wh)
    body = encoded(picture, "JPEG")
    peer = upstream.Upstream(plan.model, plan.device)
    yield measure(PREDICTOR, "fp32", 1, partial(peer.detect, picture), plan)
    yield measure(PREDICTOR_PIPELINE, "fp32", 1, partial(peer.answer, body), plan)


def quickest_precision(rates: list[Rate]) -> str:
    """The one whose forward is quickest; fp32 where none was measured."""
    forwards = [rate for rate in rates if rate.what == FORWARD]
    return max(forwards, key=lambda rate: rate.images_per_s).precision if forwards else "fp32"


def free_memory() -> None:
    """Gives what detectors that are gone held on the device to whoever comes next."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
