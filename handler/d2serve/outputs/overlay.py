"""Detections drawn on their image."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from d2serve.detections import Detections, RGBImage
from d2serve.errors import not_acceptable
from d2serve.masks.panoptic import Segment, stuff_alone
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
from d2serve.outputs.result import category_name

JPEG_QUALITY = 90
MAX_JPEG_SIDE = 65_500
ENCODERS = {JPEG: "JPEG", PNG: "PNG"}


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

    From bottom to top: segments of the map, masks, surfaces, keypoints, boxes, labels; instances
    with high scores on top.
    """
    canvas = image.copy()
    segments = _draw_segments(canvas, detections)
    _draw_masks(canvas, detections)
    if detections.surfaces is not None:
        draw_surfaces(canvas, detections.surface_maps(_worst_first(detections)))
    if detections.keypoints is not None:
        for index in _worst_first(detections):
            draw_keypoints(canvas, detections.keypoints[index], instance_color(index))
    drawn = Image.fromarray(canvas)
    draw = ImageDraw.Draw(drawn)
    fonts = LabelFonts(detections.size_hw, model.labels)
    for segment, circle in segments:
        name = drawn_name(category_name(segment, model), segment.class_index, model.labels)
        font, score = fonts.of(name), "" if segment.score is None else f" {segment.score:.0%}"
        draw_name(draw, circle, fitted(name, score, font, detections.size_hw[1]), font)
    for index in _worst_first(detections):
        draw_box(draw, detections, index)
    _draw_labels(draw, detections, model, fonts)
    return np.asarray(drawn)


def drawn_segments(detections: Detections) -> Iterator[tuple[Segment, MaskRegion]]:
    """The panoptic map's segments, else all classes of the semantic map, one at a time.

    Things are among them if nothing else shows them: MaskFormer has no instances beside its map.
    """
    panoptic = detections.panoptic
    if panoptic is None and detections.semantic is not None:
        panoptic = stuff_alone(detections.semantic)
    if panoptic is None:
        return
    with_things = not len(detections) and not detections.has_masks
    drawn = {each.id: each for each in panoptic.segments if with_things or not each.is_thing}
    for label, region in label_regions(panoptic.ids):
        if label in drawn:
            yield drawn[label], region


def _draw_segments(canvas: RGBImage, detections: Detections) -> list[tuple[Segment, Circle]]:
    """Tint the segments; return each with the place of its name."""
    places = []
    for segment, region in drawn_segments(detections):
        color = instance_color(segment.id) if segment.is_thing else stuff_color(segment.class_index)
        draw_region(canvas, region, color)
        places.append((segment, largest_circle(region)))
    return places


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
