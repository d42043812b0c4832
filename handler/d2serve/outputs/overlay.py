"""Detections drawn on their image."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from d2serve.detections import Detections, Panoptic, Picture
from d2serve.errors import not_acceptable
from d2serve.masks.panoptic import stuff_alone
from d2serve.masks.paste import MaskRegion, label_regions, paste_masks
from d2serve.metadata import ModelFacts
from d2serve.outputs.accept import JPEG, PNG
from d2serve.outputs.drawing import (
    Spot,
    draw_box,
    draw_keypoints,
    draw_name,
    draw_region,
    instance_colour,
    label_font,
    stuff_colour,
    widest_spot,
)
from d2serve.outputs.result import label_texts


@dataclass(frozen=True)
class Stuff:
    """One stuff class, and where it is in the picture."""

    class_index: int
    region: MaskRegion


def stuff_of(detections: Detections) -> Iterator[Stuff]:
    """The stuff of the panoptic map, else every class of the semantic one; one at a time."""
    segments = _segments(detections)
    if segments is not None:
        classes = {each.id: each.class_index for each in segments.segments if not each.is_thing}
        for label, region in label_regions(segments.ids):
            if label in classes:
                yield Stuff(classes[label], region)


def _segments(detections: Detections) -> Panoptic | None:
    if detections.panoptic is None and detections.semantic is not None:
        return stuff_alone(detections.semantic)
    return detections.panoptic


JPEG_QUALITY = 90
LONGEST_JPEG_SIDE = 65_500
ENCODERS = {JPEG: "JPEG", PNG: "PNG"}


def overlay_body(
    picture: Picture, detections: Detections, model: ModelFacts, media_type: str
) -> bytes:
    """The picture with all that was found drawn on it, as an encoded image.

    Args:
        picture: UInt8[H, W, 3] RGB, of the detections' size; left unchanged.
        media_type: image/jpeg or image/png.

    Raises:
        RequestError: 406 where the picture is too long for a JPEG.
    """
    if media_type == JPEG and max(detections.size_hw) > LONGEST_JPEG_SIDE:
        raise not_acceptable(
            f"a JPEG side has at most {LONGEST_JPEG_SIDE} pixels", "accept image/png"
        )
    image = Image.fromarray(draw_detections(picture, detections, model))
    encoded = io.BytesIO()
    image.save(encoded, ENCODERS[media_type], quality=JPEG_QUALITY)
    return encoded.getvalue()


def draw_detections(picture: Picture, detections: Detections, model: ModelFacts) -> Picture:
    """UInt8[H, W, 3] RGB: a copy with everything drawn.

    Stuff lies under masks, those under keypoints and boxes; the surest instances are on top.
    """
    canvas = picture.copy()
    spots = _draw_stuff(canvas, detections)
    _draw_masks(canvas, detections)
    _draw_keypoints(canvas, detections)
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    font = label_font(detections.size_hw)
    for class_index, spot in spots.items():
        draw_name(draw, spot, model.stuff_names[class_index], font)
    texts = label_texts(detections, model.class_names)
    for index in _worst_first(detections):
        draw_box(draw, detections, index, texts[index], font)
    return np.asarray(image)


def _draw_stuff(canvas: Picture, detections: Detections) -> dict[int, Spot]:
    """Tells where the names of the classes may stand."""
    spots = {}
    for stuff in stuff_of(detections):
        draw_region(canvas, stuff.region, stuff_colour(stuff.class_index))
        spots[stuff.class_index] = widest_spot(stuff.region)
    return spots


def _draw_masks(canvas: Picture, detections: Detections) -> None:
    if detections.masks is not None:
        masks, boxes = detections.masks[::-1], detections.boxes_xyxy[::-1]
        pasted = paste_masks(masks, boxes, detections.size_hw)
        for index, region in zip(_worst_first(detections), pasted, strict=True):
            draw_region(canvas, region, instance_colour(index))


def _draw_keypoints(canvas: Picture, detections: Detections) -> None:
    if detections.keypoints is not None:
        for index in _worst_first(detections):
            draw_keypoints(canvas, detections.keypoints[index], instance_colour(index))


def _worst_first(detections: Detections) -> range:
    return range(len(detections) - 1, -1, -1)
