"""Pictures to the network's size, beside upstream's transform and other libraries' filters."""

from collections.abc import Iterator
from functools import partial

import cv2
import torch
from torchvision.transforms.v2.functional import resize

from bench import upstream
from bench.contest import DETECTRON2, OURS, Contest, Contestant
from bench.scale import Scale, picture_of, size_text
from handler.pictures import Picture
from handler.rcnn.config import load_config
from handler.rcnn.image_batch import resize_picture, shortest_edge_size

STAGE = "resize"
NOTE = "OpenCV's filter skips pixels where it shrinks, and gives other pixels than Detectron2's"


def contests(scale: Scale) -> Iterator[Contest]:
    """One for each size."""
    config = load_config(scale.model.config).input
    model = upstream.Upstream(scale.model, scale.device) if upstream.installed() else None
    for size_wh in scale.sizes_wh:
        picture = picture_of(size_wh)
        size_hw = shortest_edge_size(
            (picture.shape[0], picture.shape[1]), config.min_size, config.max_size
        )
        contestants = {
            OURS: Contestant(partial(resize_picture, picture, config)),
            "torchvision": Contestant(partial(_torchvision, picture, size_hw)),
            "OpenCV": Contestant(partial(cv2.resize, picture, size_hw[::-1])),
        }
        if model is not None:
            contestants[DETECTRON2] = Contestant(partial(model.resize, picture))
        case = f"{size_text(size_wh)} to {size_text((size_hw[1], size_hw[0]))}"
        yield Contest(STAGE, case, contestants, note=NOTE)


def _torchvision(picture: Picture, size_hw: tuple[int, int]) -> object:
    return resize(torch.from_numpy(picture).permute(2, 0, 1), list(size_hw), antialias=True)
