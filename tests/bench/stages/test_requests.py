"""Whole requests, and what their Server-Timing says of the parts."""

import pytest
import torch

from bench.contest import Contest, hold
from bench.scale import quick_scale
from bench.stages import requests
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.telemetry import HttpResponse
from d2serve.settings import Settings
from tests.bodies import image_bytes, noise
from tests.fakes import FakeDetector, facts


def response(server_timing: str, status: int = 200) -> HttpResponse:
    return HttpResponse(status, "application/json", b"{}", {"Server-Timing": server_timing})


def test_those_that_ran_together_share_one_forward() -> None:
    together = 'decode;dur=1.5, queue;dur=9, forward;dur=40, encode;dur=2, batch;desc="2"'
    alone = 'decode;dur=3, forward;dur=30, encode;dur=1, batch;desc="1"'
    parts = requests.parts_of([response(together), response(together), response(alone)])
    assert parts == pytest.approx({"decode": 0.006, "forward": 0.070, "encode": 0.005})


def test_a_refused_request_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="a request got 400"):
        requests.parts_of([response("", status=400)])


def test_all_requests_of_a_run_go_together() -> None:
    detector = FakeDetector()
    pipeline = Pipeline(detector, facts("thing"), Settings())
    bodies = [image_bytes(noise(20, 30, 3), "JPEG")] * 3
    contestants = {"ours": requests.ours(pipeline, bodies)}
    hold(Contest("requests", "3", contestants, pictures=3), rounds=2)
    assert detector.pictures_per_call == [3, 3, 3]


def test_the_parts_make_up_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.upstream.installed", lambda: False)
    scale = quick_scale(torch.device("cpu"), ("fp32",))
    *_, contest = requests.contests(scale)
    assert (contest.model, contest.case, contest.pictures) == (
        *("mask_rcnn_r50", "fp32, batch 2"),
        2,
    )
    timing = hold(contest, rounds=2).ours
    assert list(timing.parts) == ["decode", "forward", "encode", "rest"]
    for turn, total in enumerate(timing.seconds):
        parts = [seconds[turn] for seconds in timing.parts.values()]
        assert min(parts[:3]) > 0
        # Work that overlaps is longer than the whole.
        assert sum(parts) > 0.8 * total
