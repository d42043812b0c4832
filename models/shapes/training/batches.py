"""Endless batches of generated scenes in Detectron2's training format."""

import itertools
from collections.abc import Iterator
from typing import TypeVar

import cv2
import numpy as np
import torch
from detectron2.data import transforms
from detectron2.structures import BitMasks, Instances
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from models.shapes.training.outlines import ByteArray
from models.shapes.training.plan import Sample, process_count, process_index
from models.shapes.training.scenes import Scene, generate_scene

Batch = TypeVar("Batch")
SMALL_SIDES = (160, 192, 224)
FULL_SIDES = (256, 288, 320, 352)


class SeededBatches(IterableDataset[Batch]):
    """Endless batches of generated scenes; the workers of a loader use different seeds."""

    def __init__(self, batch_size: int, first_seed: int) -> None:
        """`batch_size` images per batch; `first_seed` is the seed of the first scene."""
        super().__init__()
        self.batch_size = batch_size
        self.first_seed = first_seed


class SceneBatches(SeededBatches[list[Sample]]):
    """Endless batches of training samples; a batch has one orientation and scale."""

    def __iter__(self) -> Iterator[list[Sample]]:
        """Yield batches."""
        buckets: dict[bool, list[Scene]] = {False: [], True: []}
        for seed in worker_seeds(self.first_seed):
            scene = generate_scene(seed)
            height, width = scene.image.shape[:2]
            bucket = buckets[height > width]
            bucket.append(scene)
            if len(bucket) == self.batch_size:
                side = int(np.random.default_rng(seed).choice(FULL_SIDES))
                yield [training_sample(scene, side) for scene in bucket]
                bucket.clear()


class SmallSceneBatches(SeededBatches[list[Sample]]):
    """Endless batches of training samples that are generated small; a batch has one image size."""

    def __iter__(self) -> Iterator[list[Sample]]:
        """Yield batches."""
        seeds = worker_seeds(self.first_seed)
        sizes = np.random.default_rng(self.first_seed)
        while True:
            size = _small_size(sizes)
            scenes = [
                generate_scene(seed, size) for seed in itertools.islice(seeds, self.batch_size)
            ]
            yield [training_sample(scene, min(size)) for scene in scenes]


def _small_size(rng: np.random.Generator) -> tuple[int, int]:
    short_side = int(rng.choice(SMALL_SIDES))
    long_side = round(short_side * rng.uniform(1.0, 1.8))
    return (long_side, short_side) if rng.random() < 0.5 else (short_side, long_side)


def worker_seeds(first_seed: int) -> Iterator[int]:
    """Yield the seeds from `first_seed` on for this worker of this process."""
    worker = get_worker_info()
    index, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
    start = process_index() * count + index
    return itertools.count(first_seed + start, process_count() * count)


def training_sample(scene: Scene, side: int) -> Sample:
    """Convert a scene to a Detectron2 training input with a shorter side of `side` pixels.

    `image` is a `float32` tensor `(3, height, width)` in BGR order, 0..255; `instances`
    holds boxes `(x0, y0, x1, y1)`, classes and masks, in the pixels of that tensor.
    """
    image, resize = resized(scene.image, side, 2 * side)
    height, width = image.shape[1:]
    masks = [resize.apply_segmentation(item.mask.astype(np.uint8)) for item in scene.instances]
    stacked = np.stack(masks).astype(bool) if masks else np.zeros((0, height, width), bool)
    return {"image": image, "instances": _targets(scene, torch.from_numpy(stacked))}


def _targets(scene: Scene, masks: Tensor) -> Instances:
    kept = masks.flatten(1).any(dim=1)
    classes = torch.tensor([item.class_index for item in scene.instances], dtype=torch.int64)
    targets = Instances((masks.shape[1], masks.shape[2]))
    targets.gt_masks = BitMasks(masks[kept])
    targets.gt_boxes = targets.gt_masks.get_bounding_boxes()
    targets.gt_classes = classes[kept]
    return targets


def resized(
    image: ByteArray, short_side: int, long_side: int
) -> tuple[Tensor, transforms.Transform]:
    """Resize an RGB image; return a `float32` BGR tensor `(3, height, width)`."""
    resize = transforms.ResizeShortestEdge(short_side, long_side).get_transform(image)
    return bgr_tensor(resize.apply_image(image)), resize


def bgr_tensor(image: ByteArray) -> Tensor:
    """UInt8[H, W, 3] RGB -> Float32[3, H, W] BGR, 0..255."""
    bgr = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))
    return torch.from_numpy(bgr.astype(np.float32))


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def load_batches(batches: IterableDataset[Batch], workers: int) -> Iterator[Batch]:
    """Iterate over batches that `workers` processes prepare, with one thread each."""
    loader = DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
    )
    return iter(loader)
