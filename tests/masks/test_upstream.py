"""Masks compared with the installed detectron2 package."""

from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import pytest
import torch

from d2serve.masks.rle import encode_rles
from d2serve.masks.runs import paste_runs
from tests.masks.instances import (
    Instances,
    coco,
    paste_naively,
    random_boxes,
    random_instances,
    random_masks,
)

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(
        find_spec("detectron2") is None, reason="the upstream detectron2 package is not installed"
    ),
    # Warnings of Detectron2.
    pytest.mark.filterwarnings("ignore"),
]


def paste_upstream(instances: Instances) -> npt.NDArray[np.bool_]:
    from detectron2.layers.mask_ops import paste_masks_in_image

    masks, boxes = torch.from_numpy(instances.masks), torch.from_numpy(instances.boxes_xyxy)
    pasted: npt.NDArray[np.bool_] = paste_masks_in_image(masks, boxes, instances.size_hw).numpy()
    return pasted


def ours(instances: Instances) -> list[dict[str, object]]:
    return encode_rles(paste_runs(instances.masks, instances.boxes_xyxy, instances.size_hw))


def test_ten_thousand_instances_equal_detectron2() -> None:
    for instances in random_instances(10_000, largest=320):
        assert ours(instances) == coco(paste_upstream(instances))


@pytest.mark.parametrize("size_hw", [(480, 640), (1080, 1920), (3000, 4000)], ids=str)
def test_hundred_instances_of_a_large_image_equal_detectron2(
    size_hw: tuple[int, int],
) -> None:
    generator = np.random.default_rng(5)
    masks, boxes = random_masks(generator, 100, 28), random_boxes(generator, 100, size_hw)
    for chosen in np.split(np.arange(100), 10):
        instances = Instances(masks[chosen], boxes[chosen], size_hw)
        assert ours(instances) == coco(paste_upstream(instances))


def test_naive_pasting_equals_detectron2() -> None:
    for instances in random_instances(10_000):
        np.testing.assert_array_equal(paste_naively(instances), paste_upstream(instances))
