"""The detections of each image out of all boxes of all images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from handler.rcnn.instances import Instances
from handler.rcnn.nms import grouped_nms


@dataclass(frozen=True)
class Unsorted:
    """Boxes of several images in any order.

    boxes: Float32[N, 4] xyxy in pixels; scores: Float32[N] in 0..1; classes, images: Int64[N].
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    images: Tensor


def best_of_images(found: Unsorted, images: int, threshold: float, most: int) -> Instances:
    """Class-wise NMS, then the best of each image, all images together.

    Args:
        found: boxes of 0..images - 1.
        images: how many there are.
        threshold: the IoU above which the lower score of a class goes.
        most: how many of an image stay.
    """
    # A class of an image is a group.
    groups = found.classes * images + found.images
    kept = grouped_nms(found.boxes, found.scores, groups, threshold)
    kept = kept[found.images[kept].argsort(stable=True)]
    each = torch.arange(images, device=kept.device)[:, None]
    counts = (found.images[kept] == each).sum(dim=1).tolist()
    kept = torch.cat([of_image[:most] for of_image in kept.split(counts)])
    return Instances(
        found.boxes[kept],
        found.scores[kept],
        found.classes[kept],
        [min(count, most) for count in counts],
    )
