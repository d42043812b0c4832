"""Parts and surface coordinates of instances in responses: PNGs, an image of all, and drawing."""

import base64
import colorsys
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from d2serve.detections import Detections, RGBImage
from d2serve.masks.densepose import IUV, SurfaceMap
from d2serve.outputs.segment_maps import check_png_side

OPACITY = 0.6
# Parts whose labels follow each other get hues that are far apart.
HUE_STEP = 7 / 24


def densepose_objects(detections: Detections) -> list[dict[str, Any]]:
    """The surface map of each instance: `box`, x, y, width, height in pixels, and `png` in base64.

    Red is the part label, green U and blue V, as `labels_uv_uint8` of the project DensePose.

    Raises:
        RequestError: 406, a box is too long for libpng.
        ValueError: the model has no DensePose head.
    """
    return [
        {"box": list(each.box_xywh), "png": _png(each.iuv)} for each in detections.surface_maps()
    ]


def compressed_results(detections: Detections) -> list[dict[str, Any]]:
    """The arguments of the project's `DensePoseChartResultCompressed` for each instance.

    Raises:
        RequestError, ValueError: see `densepose_objects`.
    """
    return [
        {"shape_chw": list(each.iuv.shape), "labels_uv_str": _png(each.iuv)}
        for each in detections.surface_maps()
    ]


def draw_surfaces(canvas: RGBImage, maps: Iterable[SurfaceMap]) -> None:
    """Tint each pixel of a part in the part's color, on UInt8[H, W, 3] RGB."""
    colors = _part_colors()
    for surface in maps:
        window, labels = canvas[surface.window], surface.iuv[0]
        tinted = cv2.addWeighted(window, 1 - OPACITY, colors[labels], OPACITY, 0)
        cv2.copyTo(tinted, labels, window)


def _png(iuv: IUV) -> str:
    check_png_side((iuv.shape[1], iuv.shape[2]))
    _, encoded = cv2.imencode(".png", cv2.merge([*iuv[::-1]]))
    return base64.b64encode(encoded.tobytes()).decode("ascii")


def _part_colors() -> npt.NDArray[np.uint8]:
    """UInt8[256, 3]: a color for each part label."""
    colors = [colorsys.hsv_to_rgb(label * HUE_STEP % 1.0, 0.75, 1.0) for label in range(256)]
    return (np.array(colors) * 255).astype(np.uint8)
