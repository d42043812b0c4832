"""Rates of decoding JPEGs, on one core and on the GPU: where `handler.decode: device` pays."""

from collections.abc import Iterator
from functools import partial

from bench.gpu.plan import Plan
from bench.gpu.rate import Rate, measure
from bench.scale import picture_of, size_text
from bench.stages.decode import encoded
from handler.inputs.jpeg import decode_on_cpu, decode_on_gpu

ON_CPU, ON_GPU = "JPEG {} decoded, one core", "JPEG {} decoded, nvJPEG"


def decode_rates(plan: Plan) -> Iterator[Rate]:
    """One picture after the other; nvJPEG, whose pictures come back to the host, on a GPU alone."""
    for size_wh in plan.decode_sizes_wh:
        body, size = encoded(picture_of(size_wh), "JPEG"), size_text(size_wh)
        yield measure(ON_CPU.format(size), "", 1, partial(decode_on_cpu, body), plan)
        if plan.device.type == "cuda":
            on_gpu = partial(decode_on_gpu, body, plan.device)
            yield measure(ON_GPU.format(size), "", 1, on_gpu, plan)
