"""The benchmarks' measurements of a server that all tests share, and their baselines."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from bench.baselines.servers import BASELINES, MODELS
from bench.loadgen.generator import ClosedLoop
from bench.loadgen.load import image_requests, measure
from bench.memory import worker_samples
from d2serve.servers.torchserve.launcher.server import Server
from tests.serving.traffic import BOX_TOLERANCE_PX, MIN_MASK_IOU, SCORE_TOLERANCE

pytestmark = pytest.mark.serving


def test_the_workers_memory_is_sampled_over_its_requests(server: Server, jpeg: Path) -> None:
    samples = worker_samples(server, jpeg.read_bytes(), requests=20, clients=4)
    assert samples[0][0] == 0
    assert samples[-1][0] == 20
    assert min(resident for _, resident in samples) > 100e6


def test_the_rate_of_several_clients(server: Server, jpeg: Path) -> None:
    url = f"{server.url}/predictions/{server.model_name}"
    load = measure(url, image_requests([jpeg]), ClosedLoop(4), 2.0)
    assert load.failures == 0
    assert load.requests >= 4
    assert load.requests_per_s > 0


def request(url: str, jpeg: Path) -> Any:
    headers = {"Content-Type": "image/jpeg", "Accept": "application/json"}
    body, how = jpeg.read_bytes(), {"headers": headers, "timeout": 120, "trust_env": False}
    return httpx.post(url, content=body, **how).raise_for_status().json()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["naive", "toolkit"])
def test_a_baseline_has_our_detections(
    name: str, server: Server, tmp_path: Path, jpeg: Path
) -> None:
    ours = request(f"{server.url}/predictions/{server.model_name}", jpeg)
    with BASELINES[name].serve(MODELS["shapes"](tmp_path), tmp_path) as url:
        theirs = request(url, jpeg)
    assert theirs["classes"] == ours["classes"]
    np.testing.assert_allclose(theirs["scores"], ours["scores"], rtol=0, atol=SCORE_TOLERANCE)
    np.testing.assert_allclose(theirs["boxes"], ours["boxes"], rtol=0, atol=BOX_TOLERANCE_PX)
    for mask, rle in zip(theirs["masks"], ours["masks"], strict=True):
        one, other = np.array(mask, dtype=bool), coco_mask.decode(rle) > 0
        assert (one & other).sum() / (one | other).sum() >= MIN_MASK_IOU


def test_object_detector_has_a_hundred_detections_without_masks(tmp_path: Path, jpeg: Path) -> None:
    with BASELINES["object_detector"].serve(MODELS["shapes"](tmp_path), tmp_path) as url:
        found = request(url, jpeg)
    assert len(found) == 100
    assert all(each["score"] >= 0.5 for each in found)
    assert not any("mask" in key for each in found for key in each)
