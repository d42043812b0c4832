"""Times one picture through our network beside upstream Detectron2's, stage by stage.

A Mask R-CNN with ResNet-50 and a pyramid, seeded weights, a picture of 640x480 that becomes
1067x800. The contestants take turns within each round, so that whatever else the machine does falls
on all of them; ratios are of the same round. Upstream takes part where `detectron2` is installed,
and does not paste its masks into the picture, because our network leaves that to the encoder.

python -m bench.forward [--threads 4] [--rounds 7] [--precisions fp32 bf16]
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from handler.detections import Detections
from handler.detector.native import NativeDetector
from handler.pictures import Picture
from handler.settings import PRECISIONS, Settings
from tests.goldens.cases import SAMPLES, GoldenModel
from tests.goldens.comparison import compare
from tests.goldens.upstream import UpstreamModel

CONFIG = Path(__file__).with_name("mask_rcnn_r50_fpn.yaml")
MODEL = GoldenModel("mask_rcnn_r50_fpn", CONFIG, None, ())
TILES, TILE_WH = (2, 2), (320, 240)
STAGES = ("resize", "backbone", "proposals", "boxes", "masks", "rest")
UPSTREAM = "upstream"

Times = dict[str, list[float]]


class Contestant:
    """A model with its stages' times in seconds, which its modules' hooks write down."""

    def __init__(self, model: Any, run: Callable[[], object]) -> None:
        self.run = run
        self.times: Times = {stage: [] for stage in (*STAGES, "total")}
        self._last = 0.0
        model.backbone.register_forward_pre_hook(lambda *_: self._end_of("resize"))
        for stage, module in {
            "backbone": model.backbone,
            "proposals": model.proposal_generator,
            "boxes": model.roi_heads.box_predictor,
            "masks": model.roi_heads,
        }.items():
            module.register_forward_hook(lambda *_, stage=stage: self._end_of(stage))

    def take_turn(self) -> None:
        """Runs once and writes down the times."""
        start = self._last = time.perf_counter()
        self.run()
        self._end_of("rest")
        self.times["total"].append(time.perf_counter() - start)

    def _end_of(self, stage: str) -> None:
        now = time.perf_counter()
        self.times[stage].append(now - self._last)
        self._last = now


def main(arguments: Sequence[str]) -> int:
    """Prints the differences in the answers, the times and the ratios."""
    parser = argparse.ArgumentParser(description="times of the forward, beside upstream's")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["fp32", "bf16"])
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    contestants = _contestants(given.precisions, _picture())
    print(f"{given.threads} threads, load {_load()}")
    for _ in range(given.rounds):
        for contestant in contestants.values():
            contestant.take_turn()
    print(f"after {given.rounds} rounds, load {_load()}; milliseconds, medians (quartiles)")
    _print_table({name: contestant.times for name, contestant in contestants.items()})
    return 0


def _contestants(precisions: Sequence[str], picture: Picture) -> Mapping[str, Contestant]:
    """All of them, each run once before it counts."""
    upstream = UpstreamModel(CONFIG, None) if find_spec("detectron2") else None
    expected = None if upstream is None else upstream.predict(picture)
    contestants = {}
    for precision in precisions:
        detector = _native(precision)
        [outcome] = detector.detect([picture])
        assert isinstance(outcome.found, Detections)
        told = f"{len(outcome.found)} detections"
        print(precision, told if expected is None else compare(expected, outcome.found))
        contestants[precision] = Contestant(detector.model, _detect(detector, picture))
    if upstream is not None:
        run = _infer(upstream, picture)
        run()
        contestants = {UPSTREAM: Contestant(upstream.model, run), **contestants}
    return contestants


def _native(precision: str) -> NativeDetector:
    return NativeDetector(MODEL.build(), torch.device("cpu"), Settings(precision=precision))


def _detect(detector: NativeDetector, picture: Picture) -> Callable[[], object]:
    return lambda: detector.detect([picture])


def _infer(upstream: UpstreamModel, picture: Picture) -> Callable[[], object]:
    ordered = np.ascontiguousarray(picture[:, :, ::-1])

    def infer() -> object:
        resized = upstream.resize.get_transform(ordered).apply_image(ordered)
        image = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
        with torch.no_grad():
            return upstream.model.inference([{"image": image}], do_postprocess=False)

    return infer


def _picture() -> Picture:
    """Sample pictures side by side."""
    tiles = [np.array(Image.open(path).convert("RGB").resize(TILE_WH)) for path in SAMPLES]
    rows, columns = TILES
    return np.vstack([np.hstack(tiles[row * columns : (row + 1) * columns]) for row in range(rows)])


def _print_table(times: Mapping[str, Times]) -> None:
    print(" " * 10, *(f"{name:>22}" for name in times))
    for stage in (*STAGES, "total"):
        cells = (_summary([second * 1e3 for second in own[stage]], 0) for own in times.values())
        print(f"{stage:10}", *(f"{cell:>22}" for cell in cells))
    if UPSTREAM in times:
        base = times[UPSTREAM]["total"]
        ratios = (
            _summary([theirs / ours for theirs, ours in zip(base, own["total"], strict=True)], 2)
            for own in times.values()
        )
        print(f"{'x upstream':10}", *(f"{cell:>22}" for cell in ratios))


def _summary(values: Sequence[float], digits: int) -> str:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def _load() -> str:
    return " ".join(f"{load:.1f}" for load in os.getloadavg())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
