"""Masks of 28x28 to RLE and polygons, beside Detectron2's pasting and pycocotools."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from bench import upstream
from bench.contest import OURS, Contest, Contestant
from bench.scale import Scale, size_text
from handler.detections import Detections
from handler.outputs.segmentations import segmentations

STAGE = "masks"
PEER = "detectron2 + pycocotools"
POLYGONS = f"{OURS}, polygons"


def contests(scale: Scale) -> Iterator[Contest]:
    """One for each size.

    Raises:
        RuntimeError: our RLE is not the peer's.
    """
    for size_wh in scale.sizes_wh:
        found = detections((size_wh[1], size_wh[0]), scale.instances)
        contestants = {
            OURS: Contestant(partial(segmentations, found, "rle")),
            POLYGONS: Contestant(partial(segmentations, found, "polygon")),
        }
        if upstream.installed():
            contestants[PEER] = Contestant(partial(_upstream, found))
            if _upstream(found) != segmentations(found, "rle"):
                raise RuntimeError(f"{size_text(size_wh)}: the RLE of {OURS} and {PEER} differ")
        yield Contest(STAGE, f"{scale.instances} masks, {size_text(size_wh)}", contestants)


def detections(size_hw: tuple[int, int], instances: int) -> Detections:
    """Instances of a tenth to half of the picture's width, and of its height."""
    generator = np.random.default_rng(0)
    sides = np.array(size_hw[::-1])
    spans = generator.uniform(0.1, 0.5, (instances, 2)) * sides
    starts = generator.random((instances, 2)) * (sides - spans)
    return Detections(
        size_hw,
        np.concatenate((starts, starts + spans), axis=1).astype(np.float32),
        np.ones(instances, dtype=np.float32),
        np.zeros(instances, dtype=np.int64),
        _blobs(generator, instances),
    )


def _blobs(generator: np.random.Generator, instances: int) -> npt.NDArray[np.float32]:
    """Float32[N, 28, 28] probabilities that fall off at a wavy outline, a little noisy."""
    middles = np.linspace(-1, 1, 28)
    x, y = np.meshgrid(middles, middles)
    angles, turns = np.arctan2(y, x), generator.uniform(0, 2 * np.pi, (instances, 1, 1))
    outline = 0.75 + 0.15 * np.sin(3 * angles + turns) + 0.1 * np.cos(5 * angles - turns)
    noise = generator.normal(0, 0.2, (instances, 28, 28))
    return (1 / (1 + np.exp(8 * (np.hypot(x, y) - outline) + noise))).astype(np.float32)


def _upstream(found: Detections) -> list[dict[str, object]]:
    return upstream.paste_and_encode(found.masks, found.boxes_xyxy, found.size_hw)
