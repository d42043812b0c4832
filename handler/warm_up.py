"""The first requests of a worker, sent by itself, so that no client waits for one-time set-up."""

import io
import json
from collections.abc import Collection, Iterable

import numpy as np
from PIL import Image

from handler.messages import HttpRequest, Part
from handler.pipeline import Pipeline


def warm_up(
    pipeline: Pipeline, sizes_wh: Iterable[tuple[int, int]], batches: Collection[int]
) -> None:
    """Sends JPEGs through all stages, because libraries load parts, and networks choose kernels and
    take memory, for the first picture of a size.

    Args:
        pipeline: what clients will use.
        sizes_wh: widths and heights in pixels.
        batches: how many pictures of a size go together; each number is tried.

    Raises:
        RuntimeError: a picture is not answered.
    """
    for size_wh in sizes_wh:
        request = HttpRequest({}, (Part("image/jpeg", _noise(size_wh)),), {}, "warm-up")
        for count in batches:
            for response in pipeline.run([request] * count):
                if response.status != 200:
                    width, height = size_wh
                    message = json.loads(response.body)["error"]["message"]
                    raise RuntimeError(
                        f"warming up with {count} of {width}x{height} failed: {message} "
                        f"({response.status}); the log above may tell more"
                    )


def _noise(size_wh: tuple[int, int]) -> bytes:
    """A JPEG with something everywhere, so that a network finds regions to look into."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size_wh[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()
