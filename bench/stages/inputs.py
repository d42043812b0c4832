"""Decoding to UInt8[H, W, 3] RGB and resizing, beside libraries that do only that."""

import io
from collections.abc import Callable, Iterator
from functools import partial

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode
from torchvision.io import decode_image as decode_by_torchvision
from torchvision.transforms.v2.functional import resize

from bench import upstream
from bench.comparison import DETECTRON2, OURS, Comparison, Implementation
from bench.workloads import Scale, encode_image, image_of, size_text
from d2serve.building.config import load_config
from d2serve.detections import Picture
from d2serve.inputs.body import decode_items
from d2serve.messages import Options, Part
from d2serve.model.image_list import resize_picture, shortest_edge_size
from d2serve.settings import Settings

DECODE_NOTE = "d2serve also checks sizes, hostile headers and EXIF"
RESIZE_NOTE = "OpenCV's filter skips pixels where it shrinks; its pixels differ from Detectron2's"
MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "NPY": "application/x-npy"}


def decoding(scale: Scale) -> Iterator[Comparison]:
    """A comparison for each format and size."""
    for size_wh in scale.sizes_wh:
        for file_format, media_type in MEDIA_TYPES.items():
            body = encode_image(image_of(size_wh), file_format)
            part = Part(media_type, body)
            calls: dict[str, Callable[[], object]] = {
                OURS: partial(decode_items, [part], Options(0.0, 100), Settings()),
                **({"numpy": partial(_numpy, body)} if file_format == "NPY" else _decoders(body)),
            }
            implementations = {name: Implementation(call) for name, call in calls.items()}
            case = f"{file_format} {size_text(size_wh)}"
            yield Comparison("decode", case, implementations, note=DECODE_NOTE)


def resizing(scale: Scale) -> Iterator[Comparison]:
    """A comparison for each size."""
    config = load_config(scale.model.config).input
    baseline = upstream.Upstream(scale.model, scale.device) if upstream.installed() else None
    for size_wh in scale.sizes_wh:
        image = image_of(size_wh)
        height, width = shortest_edge_size(size_wh[::-1], config.min_size, config.max_size)
        calls: dict[str, Callable[[], object]] = {
            OURS: partial(resize_picture, image, config),
            "torchvision": partial(_resize_by_torchvision, image, (height, width)),
            "OpenCV": partial(cv2.resize, image, (width, height)),
        }
        if baseline is not None:
            calls[DETECTRON2] = partial(baseline.resize, image)
        implementations = {name: Implementation(call) for name, call in calls.items()}
        case = f"{size_text(size_wh)} to {size_text((width, height))}"
        yield Comparison("resize", case, implementations, note=RESIZE_NOTE)


def _decoders(body: bytes) -> dict[str, Callable[[], object]]:
    return {
        "Pillow": lambda: np.asarray(Image.open(io.BytesIO(body)).convert("RGB")),
        "torchvision": lambda: decode_by_torchvision(
            torch.frombuffer(bytearray(body), dtype=torch.uint8), ImageReadMode.RGB
        ),
        "OpenCV": partial(_opencv, body),
    }


def _numpy(body: bytes) -> object:
    return np.load(io.BytesIO(body), allow_pickle=False)


def _opencv(body: bytes) -> object:
    bgr = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _resize_by_torchvision(image: Picture, size_hw: tuple[int, int]) -> object:
    return resize(torch.from_numpy(image).permute(2, 0, 1), list(size_hw), antialias=True)
