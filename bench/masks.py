"""Masks of 28 x 28 to RLE and polygons: `python -m bench.masks [ROUNDS]` prints a table."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from bench.timing import Timing, in_alternation, ratio
from handler.detections import Detections
from handler.outputs.segmentations import segmentations

SIZES_HW = ((480, 640), (1080, 1920), (3000, 4000))
INSTANCES = 100
ROUNDS = 7
OURS = "ours"
PEER = "detectron2 + pycocotools"
POLYGONS = "ours, polygons"
NO_PEER = f"{PEER}: left out, as detectron2 is not installed"


@dataclass(frozen=True)
class Comparison:
    """Timings of one picture size, taken in alternation.

    Attributes:
        size_hw: height and width of the picture.
        ours: masks to RLE.
        polygons: masks to polygons.
        peer: masks to RLE by `paste_masks_in_image` and pycocotools, as Detectron2's evaluators
            do it; None where detectron2 is not installed.
    """

    size_hw: tuple[int, int]
    ours: Timing
    polygons: Timing
    peer: Timing | None


def comparisons(rounds: int = ROUNDS) -> Iterator[Comparison]:
    """One for each of `SIZES_HW`.

    Raises:
        RuntimeError: our RLE is not the peer's.
    """
    for size_hw in SIZES_HW:
        found = detections(size_hw)
        callables = _callables(found)
        if PEER in callables and callables[PEER]() != callables[OURS]():
            raise RuntimeError(f"{size_hw}: the RLE of {OURS} and {PEER} differ")
        timed = {timing.name: timing for timing in in_alternation(callables, rounds)}
        yield Comparison(size_hw, timed[OURS], timed[POLYGONS], timed.get(PEER))


def detections(size_hw: tuple[int, int]) -> Detections:
    """A hundred instances of a tenth to half of the picture's width, and of its height."""
    generator = np.random.default_rng(0)
    sides = np.array(size_hw[::-1])
    spans = generator.uniform(0.1, 0.5, (INSTANCES, 2)) * sides
    starts = generator.random((INSTANCES, 2)) * (sides - spans)
    return Detections(
        size_hw,
        np.concatenate((starts, starts + spans), axis=1).astype(np.float32),
        np.ones(INSTANCES, dtype=np.float32),
        np.zeros(INSTANCES, dtype=np.int64),
        _blobs(generator),
    )


def _blobs(generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """Float32[N, 28, 28] probabilities that fall off at a wavy outline, a little noisy."""
    middles = np.linspace(-1, 1, 28)
    x, y = np.meshgrid(middles, middles)
    angles, turns = np.arctan2(y, x), generator.uniform(0, 2 * np.pi, (INSTANCES, 1, 1))
    outline = 0.75 + 0.15 * np.sin(3 * angles + turns) + 0.1 * np.cos(5 * angles - turns)
    noise = generator.normal(0, 0.2, (INSTANCES, 28, 28))
    return (1 / (1 + np.exp(8 * (np.hypot(x, y) - outline) + noise))).astype(np.float32)


def _callables(found: Detections) -> dict[str, Callable[[], object]]:
    callables: dict[str, Callable[[], object]] = {
        OURS: lambda: segmentations(found, "rle"),
        POLYGONS: lambda: segmentations(found, "polygon"),
    }
    if find_spec("detectron2") is not None:
        callables[PEER] = lambda: _upstream(found)
    return callables


def _upstream(found: Detections) -> list[dict[str, object]]:
    import pycocotools.mask
    import torch
    from detectron2.layers.mask_ops import paste_masks_in_image

    masks, boxes = torch.from_numpy(found.masks), torch.from_numpy(found.boxes_xyxy)
    pasted = paste_masks_in_image(masks, boxes, found.size_hw).numpy()
    encoded = (pycocotools.mask.encode(np.asfortranarray(mask.view(np.uint8))) for mask in pasted)
    return [
        {"size": list(each["size"]), "counts": each["counts"].decode("ascii")} for each in encoded
    ]


def _row(size_hw: tuple[int, int], timing: Timing, beside: str = "") -> str:
    height, width = size_hw
    low, median, high = (
        1000 * value for value in (timing.quartiles[0], timing.median, timing.quartiles[1])
    )
    return (
        f"{width}x{height:<6} {timing.name:<26} {median:8.1f} ms  ({low:.1f}..{high:.1f}){beside}"
    )


def main() -> None:
    """Prints each size's timings and how many times as long the peer takes."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(f"{INSTANCES} instances, {rounds} rounds in alternation: median (quartiles)")
    for each in comparisons(rounds):
        print(_row(each.size_hw, each.ours))
        print(_row(each.size_hw, each.polygons))
        if each.peer is None:
            print(NO_PEER)
        else:
            times = ratio(each.peer, each.ours)
            spread = f"{times.quartiles[0]:.0f}..{times.quartiles[1]:.0f}"
            print(_row(each.size_hw, each.peer, f"  {times.median:.0f}x ours ({spread})"))


if __name__ == "__main__":
    main()
