"""What is measured on a GPU, and on the CPU where the script itself is on trial."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from bench.scale import R50_FPN, SIZES_WH, Scale, quick_scale
from tests.goldens.cases import GoldenModel

# What becomes 800x1344 inside the network: its longer side may have 1333 pixels, and is padded.
PICTURE_WH = (1333, 800)
BATCHES = (1, 2, 4, 8, 16)
PIPELINE_BATCHES = (1, 8, 16)
CLIENTS = (16, 32)
# For all but HTTP, which takes two minutes more; what would begin later is left out.
WITHIN_S = 300.0


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        device: where the network runs.
        model: whose weights are drawn from their names.
        picture_wh: width and height of all pictures, in pixels.
        precisions: names as of the setting.
        batches: of the forward.
        pipeline_batches: of whole requests.
        decode_sizes_wh: of JPEGs that are decoded and no more.
        clients: at once, over HTTP.
        seconds: of each measurement.
        http_seconds: of each measurement over HTTP.
        within_s: of all but HTTP.
        clock: seconds since some moment.
    """

    device: torch.device
    model: GoldenModel = R50_FPN
    picture_wh: tuple[int, int] = PICTURE_WH
    precisions: tuple[str, ...] = ("fp32", "bf16", "fp16")
    batches: tuple[int, ...] = BATCHES
    pipeline_batches: tuple[int, ...] = PIPELINE_BATCHES
    decode_sizes_wh: tuple[tuple[int, int], ...] = SIZES_WH
    clients: tuple[int, ...] = CLIENTS
    seconds: float = 3.0
    http_seconds: float = 20.0
    within_s: float = WITHIN_S
    clock: Callable[[], float] = time.perf_counter
    started: float = field(default_factory=time.perf_counter)

    @property
    def time_is_up(self) -> bool:
        """Whether nothing more may begin."""
        return self.clock() - self.started >= self.within_s

    @property
    def scale(self) -> Scale:
        """What builds the detectors."""
        return Scale(self.device, self.precisions, model=self.model)


def quick_plan(device: torch.device) -> Plan:
    """A trial of the script within seconds: the figures mean nothing."""
    scale = quick_scale(device, ("fp32",))
    return Plan(
        device,
        scale.model,
        scale.picture_wh,
        precisions=("fp32", "bf16") if device.type == "cpu" else ("fp32", "bf16", "fp16"),
        batches=(1, 2),
        pipeline_batches=(1, 2),
        decode_sizes_wh=scale.sizes_wh,
        clients=(2, 4),
        seconds=0.2,
        http_seconds=2.0,
    )
