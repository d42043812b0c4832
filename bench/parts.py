"""How long the parts of a run take, one after another."""

from time import perf_counter
from typing import Any

import torch


class PartClock:
    """Laps of a run: each part ends where the next one begins.

    Attributes:
        laps: of each run by name the seconds of its parts, in the order in which they ended.
    """

    def __init__(self) -> None:
        self.laps: list[dict[str, float]] = []
        self._last = 0.0

    def start(self) -> None:
        """A run begins."""
        self.laps.append({})
        self._last = perf_counter()

    def end_of(self, part: str) -> None:
        """What was done since the last call belongs to this part."""
        _wait_for_the_device()
        now = perf_counter()
        if self.laps:
            lap = self.laps[-1]
            lap[part] = lap.get(part, 0.0) + now - self._last
        self._last = now

    def follow(self, model: Any) -> None:
        """Writes down the parts of a model with Detectron2's names for its modules; what comes
        before its backbone is `resize`."""
        model.backbone.register_forward_pre_hook(lambda *_: self.end_of("resize"))
        for part, module in {
            "backbone": model.backbone,
            "proposals": model.proposal_generator,
            "boxes": model.roi_heads.box_predictor,
            "masks": model.roi_heads,
        }.items():
            module.register_forward_hook(lambda *_, part=part: self.end_of(part))


def _wait_for_the_device() -> None:
    """A GPU's work is done later than it is asked for."""
    if torch.cuda.is_initialized() and not torch.cuda.is_current_stream_capturing():
        torch.cuda.synchronize()
