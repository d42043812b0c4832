"""Each peer serves the bundled model's picture, and finds in it what ours finds."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco_mask

from bench.peers.models import MODELS, SHAPES
from bench.peers.servers import PEERS
from d2serve.servers.torchserve.launcher.server import Server
from tests.serving.traffic import BOX_TOLERANCE_PX, LEAST_MASK_IOU, SCORE_TOLERANCE

TIMEOUT_S = 120


@pytest.fixture(scope="module")
def jpeg() -> Path:
    return SHAPES / "samples" / "shapes_01.jpg"


@pytest.fixture(scope="module")
def ours(server: Server, jpeg: Path) -> dict[str, Any]:
    return ask(f"{server.url}/predictions/{server.model_name}", jpeg)


def ask(url: str, jpeg: Path) -> Any:
    headers = {"Content-Type": "image/jpeg", "Accept": "application/json"}
    answer = httpx.post(
        url, content=jpeg.read_bytes(), headers=headers, timeout=TIMEOUT_S, trust_env=False
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def assert_same_detections(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    assert len(ours["scores"]) > 5
    assert theirs["classes"] == ours["classes"]
    np.testing.assert_allclose(theirs["scores"], ours["scores"], rtol=0, atol=SCORE_TOLERANCE)
    np.testing.assert_allclose(theirs["boxes"], ours["boxes"], rtol=0, atol=BOX_TOLERANCE_PX)
    for mask, rle in zip(theirs["masks"], ours["masks"], strict=True):
        assert iou(np.array(mask, dtype=np.bool_), coco_mask.decode(rle) > 0) >= LEAST_MASK_IOU


def iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("name", ["naive", "toolkit"])
def test_a_peer_with_our_weights_finds_what_we_find(
    name: str, ours: dict[str, Any], jpeg: Path, tmp_path: Path
) -> None:
    with PEERS[name].serve(MODELS["shapes"](tmp_path), tmp_path) as url:
        assert_same_detections(ask(url, jpeg), ours)


def test_object_detector_answers_with_a_hundred_objects_without_masks(
    jpeg: Path, tmp_path: Path
) -> None:
    """As many as ours finds in R50's picture; the network is torchvision's, whatever ours is."""
    with PEERS["object_detector"].serve(MODELS["shapes"](tmp_path), tmp_path) as url:
        found = ask(url, jpeg)
    assert len(found) == 100
    assert all(each["score"] >= 0.5 for each in found)
    assert not any("mask" in key for each in found for key in each)
