"""Pictures a second, and the memory that they take."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from bench.gpu.plan import Plan
from bench.timing import Timing, in_alternation

MOST_ROUNDS = 200
# Before the rounds, besides the one that is never timed: libraries choose their kernels.
WARM_UPS = 3


@dataclass(frozen=True)
class Rate:
    """What one measurement gave.

    Attributes:
        what: was done with each picture.
        precision: of the network.
        together: pictures in a batch, or clients at once.
        images_per_s: in a median round, or over all requests.
        seconds: of each round, or of each request.
        peak_bytes: on the device; 0 where that is not known.
        failure: why there is no rate; empty where there is one.
    """

    what: str
    precision: str
    together: int
    images_per_s: float
    seconds: tuple[float, ...]
    peak_bytes: int
    failure: str = ""


def measure(what: str, precision: str, batch: int, run: Callable[[], object], plan: Plan) -> Rate:
    """Runs a batch again and again; too little memory is told and does not end the script."""

    def waiting() -> None:
        run()
        if plan.device.type == "cuda":
            torch.cuda.synchronize()

    try:
        for _ in range(WARM_UPS):
            waiting()
        if plan.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        [timing] = in_alternation({what: waiting}, MOST_ROUNDS, within_s=plan.seconds)
    except torch.OutOfMemoryError:
        return Rate(what, precision, batch, 0.0, (), 0, "out of memory")
    return _rate(timing, precision, batch, plan)


def _rate(timing: Timing, precision: str, batch: int, plan: Plan) -> Rate:
    on_gpu = plan.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    return Rate(timing.name, precision, batch, batch / timing.median, timing.seconds, peak)
