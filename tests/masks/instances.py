"""Random instances, also difficult ones, and a naive implementation of pasting."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pycocotools.mask
import torch
import torch.nn.functional as F

SIDES = (28, 28, 28, 14, 56, 1)


@dataclass(frozen=True)
class Instances:
    """Float32[N, M, M] masks and Float32[N, 4] boxes of one image."""

    masks: npt.NDArray[np.float32]
    boxes_xyxy: npt.NDArray[np.float32]
    size_hw: tuple[int, int]


def random_instances(count: int, largest: int = 64) -> Iterator[Instances]:
    """Yield `count` instances, a hundred per image; image sides are 1 to `largest` pixels."""
    for seed in range(count // 100):
        generator = np.random.default_rng(seed)
        height, width = (int(side) for side in generator.integers(1, largest + 1, 2))
        masks = random_masks(generator, 100, SIDES[seed % len(SIDES)])
        yield Instances(masks, random_boxes(generator, 100, (height, width)), (height, width))


def random_masks(generator: np.random.Generator, count: int, side: int) -> npt.NDArray[np.float32]:
    """Float32[N, M, M]: noise, blobs, steps that include 0.5, almost 0.5, and almost all set."""
    noise = generator.random((count, side, side))
    middles = np.linspace(-1, 1, side + 2)[1:-1]
    radius = np.hypot(middles[:, None], middles)
    blobs = 1 / (1 + np.exp(8 * (radius - 0.8 * generator.random((count, 1, 1))) + noise))
    kinds = (noise, blobs, np.rint(noise * 4) / 4, 0.5 + 1e-7 * (noise - 0.5), noise > 0.05)
    chosen = np.choose(generator.integers(0, len(kinds), (count, 1, 1)), kinds)
    return chosen.astype(np.float32)


def random_boxes(
    generator: np.random.Generator, count: int, size_hw: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Float32[N, 4] of any size, also tiny or without area; the center is in the image.

    A third is cut by the border, a third is aligned to pixels."""
    sides = np.tile(size_hw[::-1], (count, 1))
    centres = generator.random((count, 2)) * sides
    spans = sides * 10 ** generator.uniform(-2.5, 0.7, (count, 2))
    spans[generator.random((count, 2)) < 0.03] = 0
    boxes = np.concatenate((centres - spans / 2, centres + spans / 2), axis=1)
    kind = generator.integers(0, 3, (count, 1))
    inside = np.clip(boxes, 0, np.tile(sides, (1, 2)))
    return np.choose(kind, (inside, boxes, np.rint(inside))).astype(np.float32)


def paste_naively(instances: Instances) -> npt.NDArray[np.bool_]:
    """Bool[N, H, W], sampled at every pixel of the image."""
    height, width = instances.size_hw
    x1, y1, x2, y2 = torch.from_numpy(instances.boxes_xyxy).T[:, :, None]
    across = (torch.arange(width) + 0.5 - x1) / (x2 - x1) * 2 - 1
    down = (torch.arange(height) + 0.5 - y1) / (y2 - y1) * 2 - 1
    shape = (len(instances.masks), height, width)
    grid = torch.stack((across[:, None].expand(shape), down[:, :, None].expand(shape)), dim=3)
    masks = torch.from_numpy(instances.masks)[:, None]
    return (F.grid_sample(masks, grid, align_corners=False)[:, 0] >= 0.5).numpy()


def coco(masks: npt.NDArray[np.bool_]) -> list[dict[str, object]]:
    """Encode Bool[N, H, W] masks with pycocotools."""
    return [
        {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}
        for encoded in (
            pycocotools.mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks
        )
    ]
