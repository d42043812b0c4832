"""Requests of the serving tests, and the comparison of responses."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from tests.bodies import image_bytes

BOX_TOLERANCE_PX = 0.01
SCORE_TOLERANCE = 1e-4
# Floating-point noise may change the few mask pixels whose probability is at the threshold.
MIN_MASK_IOU = 0.995


@dataclass(frozen=True)
class Body:
    """A request's body and its declared types."""

    content: bytes
    content_type: str
    accept: str = "application/json"

    def post(self, http: httpx.Client, url: str) -> httpx.Response:
        headers = {"Content-Type": self.content_type, "Accept": self.accept}
        return http.post(url, content=self.content, headers=headers)


@dataclass(frozen=True)
class BrokenBody:
    """A body that the server rejects, and the expected error."""

    body: Body
    status: int
    code: str


def image_body(image: Path) -> Body:
    subtype = "png" if image.suffix == ".png" else "jpeg"
    return Body(image.read_bytes(), f"image/{subtype}")


def npy_body(array: "np.ndarray[Any, Any]") -> Body:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return Body(buffer.getvalue(), "application/x-npy")


def pixels(image: Path) -> "np.ndarray[Any, Any]":
    """UInt8[H, W, 3] RGB."""
    return np.asarray(Image.open(image).convert("RGB"))


def zeros(side: int) -> "np.ndarray[Any, Any]":
    """A black square, UInt8[side, side, 3]."""
    return np.zeros((side, side, 3), np.uint8)


def broken_bodies(image: Path) -> list[BrokenBody]:
    """One body for each error."""
    good = image_body(image)
    truncated = Body(good.content[: len(good.content) // 2], good.content_type)
    return [
        BrokenBody(truncated, 400, "bad_request"),
        BrokenBody(Body(b"", "image/jpeg"), 400, "bad_request"),
        BrokenBody(Body(pixels(image).tobytes(), "application/x-npy"), 400, "bad_request"),
        BrokenBody(Body(good.content, good.content_type, "audio/mpeg"), 406, "not_acceptable"),
        BrokenBody(Body(b"just text", "text/plain"), 415, "unsupported_media_type"),
        BrokenBody(Body(b"no image", "image/png"), 415, "unsupported_media_type"),
        BrokenBody(npy_body(np.full((8, 8, 3), np.nan)), 422, "unprocessable"),
        BrokenBody(npy_body(np.zeros(7, np.uint8)), 422, "unprocessable"),
    ]


def predictions_of(url: str) -> "Callable[[np.ndarray[Any, Any]], dict[str, Any]]":
    """Returns the default response to an image, sent once, as PNG."""

    @lru_cache
    def send(body: bytes) -> dict[str, Any]:
        response = httpx.post(url, content=body, timeout=120, trust_env=False)
        assert response.status_code == 200, response.text
        content: dict[str, Any] = response.json()
        return content

    return lambda image: send(image_bytes(image, "PNG"))


def images_run_together(response: httpx.Response) -> int:
    """The number of images in the forward pass, by the Server-Timing header."""
    batch = re.search(r'\bbatch;desc="(\d+)"', response.headers["server-timing"])
    assert batch, response.headers["server-timing"]
    return int(batch.group(1))


def assert_rejected(response: httpx.Response, broken: BrokenBody) -> None:
    assert response.status_code == broken.status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert error["code"] == broken.code
    assert error["message"]
    assert error["hint"]


def assert_same_prediction(prediction: dict[str, Any], expected: dict[str, Any]) -> None:
    """Check for equal detections in the same order, within floating-point noise."""
    for exact in ("names", "classes", "image"):
        assert prediction[exact] == expected[exact]
    np.testing.assert_allclose(
        prediction["scores"], expected["scores"], rtol=0, atol=SCORE_TOLERANCE
    )
    np.testing.assert_allclose(
        prediction["boxes"], expected["boxes"], rtol=0, atol=BOX_TOLERANCE_PX
    )
    for mask, expected_mask in zip(prediction["masks"], expected["masks"], strict=True):
        assert mask["size"] == expected_mask["size"]
        assert mask_iou(mask, expected_mask) >= MIN_MASK_IOU


def mask_iou(mask: dict[str, Any], other: dict[str, Any]) -> float:
    """Intersection over union of two COCO compressed RLEs; 1 for two empty masks."""
    if not coco_mask.area(mask) and not coco_mask.area(other):
        return 1.0
    return float(coco_mask.iou([mask], [other], [False])[0][0])
