"""The stages of a forward, as the benchmark measures them."""

import numpy as np
import pytest
import torch

from bench.forward import STAGES, Contestant
from handler.detector.native import NativeDetector
from handler.settings import Settings
from tests.goldens.cases import TINY


def test_the_stages_make_up_the_whole() -> None:
    [golden] = [golden for golden in TINY if golden.name == "mask_rcnn_r50"]
    detector = NativeDetector(golden.build(), torch.device("cpu"), Settings())
    picture = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    contestant = Contestant(detector.model, lambda: detector.detect([picture]))
    for _ in range(2):
        contestant.take_turn()
    assert {len(times) for times in contestant.times.values()} == {2}
    assert all(min(contestant.times[stage]) > 0 for stage in STAGES)
    for turn, total in enumerate(contestant.times["total"]):
        stages = sum(contestant.times[stage][turn] for stage in STAGES)
        assert stages == pytest.approx(total, rel=0.01)
