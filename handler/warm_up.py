"""The first requests of a worker, sent by itself, so that no client waits for one-time set-up."""

import io
import json
import logging
from collections.abc import Collection, Iterable
from http import HTTPStatus

import numpy as np
from PIL import Image

from handler.messages import HttpRequest, HttpResponse, Part
from handler.pipeline import Pipeline

logger = logging.getLogger(__name__)


def warm_up(
    pipeline: Pipeline, sizes_wh: Iterable[tuple[int, int]], batches: Collection[int]
) -> None:
    """Sends JPEGs through all stages, because libraries load parts, and networks choose kernels and
    take memory, for the first picture of a size.

    A size that the settings refuse is left out: clients cannot send it either.

    Args:
        pipeline: what clients will use.
        sizes_wh: widths and heights in pixels.
        batches: how many pictures of a size go together; each number is tried.

    Raises:
        RuntimeError: a picture that clients may send is not answered.
    """
    for size_wh in sizes_wh:
        request = HttpRequest({}, (Part("image/jpeg", _noise(size_wh)),), {}, "warm-up")
        for count in batches:
            for response in pipeline.run([request] * count):
                _check(response, f"warming up with {count} of {size_wh[0]}x{size_wh[1]}")


def _check(response: HttpResponse, what: str) -> None:
    if response.status == HTTPStatus.OK:
        return
    message = json.loads(response.body)["error"]["message"]
    if response.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.warning("%s is left out: %s", what, message)
        return
    raise RuntimeError(f"{what} failed: {message} ({response.status}); the log above may tell more")


def _noise(size_wh: tuple[int, int]) -> bytes:
    """A JPEG with something everywhere, so that a network finds regions to look into."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size_wh[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()
