"""The parts of a forward, as the benchmark measures them."""

import pytest
import torch

from bench.contest import OURS, hold
from bench.scale import quick_scale
from bench.stages import forward


def test_the_parts_make_up_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.upstream.installed", lambda: False)
    scale = quick_scale(torch.device("cpu"), ("fp32",))
    contests = list(forward.contests(scale))
    assert [contest.model for contest in contests] == ["shapes", "mask_rcnn_r50"]
    assert [list(contest.contestants) for contest in contests] == [[OURS]] * 2
    assert all("detections" in contest.note for contest in contests)
    timing = hold(contests[1], rounds=2).ours
    assert tuple(timing.parts) == forward.PARTS
    for turn, total in enumerate(timing.seconds):
        parts = [seconds[turn] for seconds in timing.parts.values()]
        assert min(parts) > 0
        assert sum(parts) == pytest.approx(total, rel=0.05)
