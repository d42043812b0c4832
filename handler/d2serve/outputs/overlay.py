"""Detections drawn on their image."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from d2serve.detections import Detections, RGBImage
from d2serve.errors import not_acceptable
from d2serve.masks.panoptic import stuff_alone
from d2serve.masks.paste import MaskRegion, label_regions
from d2serve.metadata import ModelMetadata
from d2serve.outputs.accept import JPEG, PNG
from d2serve.outputs.densepose import draw_surfaces
from d2serve.outputs.drawing import (
    LABEL_MARGIN,
    Circle,
    draw_box,
    draw_keypoints,
    draw_label,
    draw_name,
    draw_region,
    instance_color,
    largest_circle,
    measured_label,
    stuff_color,
)
from d2serve.outputs.label_layout import place_labels
from d2serve.outputs.labels import LabelFonts, drawn_name, fitted

JPEG_QUALITY = 90
MAX_JPEG_SIDE = 65_500
ENCODERS = {JPEG: "JPEG", PNG: "PNG"}


@dataclass(frozen=True)
class StuffRegion:
    """One stuff class and its pixels."""

    class_index: int
    region: MaskRegion


def overlay_body(
    image: RGBImage, detections: Detections, model: ModelMetadata, media_type: str
) -> bytes:
    """Draw the detections on the image and encode it.

    Args:
        image: UInt8[H, W, 3] RGB, of the detections' size; not modified.
        detections: of the image.
        model: provides the class names.
        media_type: image/jpeg or image/png.

    Raises:
        RequestError: 406, the image is too long for a JPEG.
    """
    if media_type == JPEG and max(detections.size_hw) > MAX_JPEG_SIDE:
        height, width = detections.size_hw
        raise not_acceptable(
            f"the image is {width}x{height}, the limit of JPEG is {MAX_JPEG_SIDE} pixels a side",
            "accept image/png",
        )
    drawn = Image.fromarray(draw_detections(image, detections, model))
    encoded = io.BytesIO()
    drawn.save(encoded, ENCODERS[media_type], quality=JPEG_QUALITY)
    return encoded.getvalue()


def draw_detections(image: RGBImage, detections: Detections, model: ModelMetadata) -> RGBImage:
    """A copy of the image, UInt8[H, W, 3] RGB, with the detections drawn on it.

    From bottom to top: stuff, masks, surfaces, keypoints, boxes, labels; instances with high
    scores on top.
    """
    canvas = image.copy()
    circles = _draw_stuff(canvas, detections)
    _draw_masks(canvas, detections)
    if detections.surfaces is not None:
        draw_surfaces(canvas, detections.surface_maps(_worst_first(detections)))
    if detections.keypoints is not None:
        for index in _worst_first(detections):
            draw_keypoints(canvas, detections.keypoints[index], instance_color(index))
    drawn = Image.fromarray(canvas)
    draw = ImageDraw.Draw(drawn)
    fonts = LabelFonts(detections.size_hw, model.labels)
    for class_index, circle in circles.items():
        name = drawn_name(model.stuff_names[class_index], class_index, model.labels)
        font = fonts.of(name)
        draw_name(draw, circle, fitted(name, "", font, detections.size_hw[1]), font)
    for index in _worst_first(detections):
        draw_box(draw, detections, index)
    _draw_labels(draw, detections, model, fonts)
    return np.asarray(drawn)


def stuff_regions(detections: Detections) -> Iterator[StuffRegion]:
    """The stuff of the panoptic map, else all classes of the semantic map, one at a time."""
    segments = detections.panoptic
    if segments is None and detections.semantic is not None:
        segments = stuff_alone(detections.semantic)
    if segments is not None:
        classes = {each.id: each.class_index for each in segments.segments if not each.is_thing}
        for label, region in label_regions(segments.ids):
            if label in classes:
                yield StuffRegion(classes[label], region)


def _draw_stuff(canvas: RGBImage, detections: Detections) -> dict[int, Circle]:
    """Tint the stuff; return the place of each class's name by class index."""
    circles = {}
    for stuff in stuff_regions(detections):
        draw_region(canvas, stuff.region, stuff_color(stuff.class_index))
        circles[stuff.class_index] = largest_circle(stuff.region)
    return circles


def _draw_masks(canvas: RGBImage, detections: Detections) -> None:
    if detections.has_masks:
        indices = list(_worst_first(detections))
        for index, region in zip(indices, detections.mask_regions(indices), strict=True):
            draw_region(canvas, region, instance_color(index))


def _draw_labels(
    draw: ImageDraw.ImageDraw, detections: Detections, model: ModelMetadata, fonts: LabelFonts
) -> None:
    """Draw the names and scores, those of high scores at the best places and on top."""
    labels = []
    for index, score in zip(detections.classes.tolist(), detections.scores, strict=True):
        name, suffix = drawn_name(model.class_names[index], index, model.labels), f" {score:.0%}"
        font = fonts.of(name)
        label = measured_label(draw, name + suffix, font)
        if label.width > detections.size_hw[1]:
            width = detections.size_hw[1] - 2 * LABEL_MARGIN
            label = measured_label(draw, fitted(name, suffix, font, width), font)
        labels.append(label)
    sizes_wh = [(label.width, label.height) for label in labels]
    places = place_labels(detections.boxes_xyxy, sizes_wh, detections.size_hw).tolist()
    for index in _worst_first(detections):
        draw_label(draw, labels[index], places[index], instance_color(index))


def _worst_first(detections: Detections) -> range:
    return range(len(detections) - 1, -1, -1)
