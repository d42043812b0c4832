"""Arrays of numbers -> UInt8[H, W, 3] RGB."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from d2serve.detections import RGBImage
from d2serve.errors import RequestError, too_large, unprocessable
from d2serve.inputs import strips
from d2serve.inputs.budget import RequestBudget
from d2serve.messages import Options
from d2serve.settings import Settings

CHANNELS = (1, 3, 4)
DTYPES = ("uint8", "uint16", "bool", "float16", "float32", "float64")
# Minimum and maximum value.
BOUNDS = {"0-255": (0.0, 255.0), "0-1": (0.0, 1.0), "-1-1": (-1.0, 1.0), "0-65535": (0.0, 65535.0)}
FLOAT_RANGES = ("0-1", "-1-1", "0-255")
SHAPES = "HxW, HxWxC or CxHxW with C in 1, 3, 4, or a batch of these with a leading N"


@dataclass(frozen=True)
class ArrayImages:
    """The images of one array.

    Attributes:
        images: UInt8[H, W, 3] RGB each, or with a fourth channel.
        value_range: the range that the array's values were read in.
        is_batch: whether the array has a leading N, also of 1.
    """

    images: tuple[RGBImage, ...]
    value_range: str
    is_batch: bool


def read_array(
    array: npt.NDArray[np.generic],
    options: Options,
    settings: Settings,
    budget: RequestBudget | None = None,
    channels: int = 3,
) -> ArrayImages:
    """Read an array as one image, or as a batch with a leading N.

    HxW, HxWxC and CxHxW with C in 1, 3, 4, in the options' layout,
    channel order and value range; uint8, uint16, bool, float16, float32 or float64.

    With the layout `auto`, three axes are HxWxC if the last is 1, 3 or 4, else CxHxW if the first
    is, else N grey images HxW if N is not greater than H and W. With `hwc` and `chw`, three axes
    are one image.

    With the range `auto`, uint8 is 0-255, uint16 0-65535 and bool 0-1; floats are 0-1 if all are
    within it, else -1-1, else 0-255.

    Args:
        array: in any byte order.
        options: `input_layout`, `input_color` and `input_range`.
        settings: the limits of a single image and, without a budget, of the number of images.
        budget: limits on the request; one image of it has been taken for the array.
        channels: of the network's input; unless it is 4, a fourth channel is dropped.

    Raises:
        RequestError: 413 too many pixels or images, 422 not an image, or values out of range.
    """
    images = _as_nhwc(array, options.input_layout)
    _check_limits(images.shape, settings, budget)
    if array.dtype.newbyteorder("=") not in DTYPES:
        raise unprocessable(
            f"the array's dtype {array.dtype.name} is not supported", f"send {', '.join(DTYPES)}"
        )
    value_range = _value_range(images, options.input_range)
    rgb = (_to_rgb(_to_uint8(image, value_range), options, channels) for image in images)
    return ArrayImages(tuple(rgb), value_range, is_batch=array.ndim == 4)


def _as_nhwc(array: npt.NDArray[np.generic], layout: str) -> npt.NDArray[np.generic]:
    if not array.size or array.ndim not in (2, 3, 4):
        raise _not_an_image(array.shape)
    if array.ndim == 2:
        return array[None, :, :, None]
    last, first = array.shape[-1] in CHANNELS, array.shape[-3] in CHANNELS
    if last and layout != "chw":
        return array.reshape(-1, *array.shape[-3:])
    if first and layout != "hwc":
        return np.moveaxis(array.reshape(-1, *array.shape[-3:]), 1, 3)
    # A batch has few images of many pixels: an image with 2 or 7 channels is not taken for one.
    if layout == "auto" and array.ndim == 3 and array.shape[0] <= min(array.shape[1:]):
        return array[:, :, :, None]
    raise _not_an_image(array.shape)


def _not_an_image(shape: tuple[int, ...]) -> RequestError:
    return unprocessable(
        f"the array's shape {shape} is not that of an image in the requested input_layout",
        f"send {SHAPES}; send grey batches as NxHxWx1",
    )


def _check_limits(
    shape_nhwc: tuple[int, ...], settings: Settings, budget: RequestBudget | None
) -> None:
    count, height, width, _ = shape_nhwc
    if budget is not None:
        budget.take_images(count - 1)
    elif count > settings.max_images_per_request:
        raise too_large(
            f"the array has {count} images, the limit is {settings.max_images_per_request}",
            "send fewer per request, or raise max_images_per_request in model-config.yaml",
        )
    if height * width > settings.max_image_pixels:
        raise too_large(
            f"the array is {width}x{height}, the limit is {settings.max_image_pixels} pixels",
            "send a smaller image, or raise max_image_pixels in model-config.yaml",
        )
    if budget is not None:
        budget.take_pixels(count * height * width)


def _value_range(array: npt.NDArray[Any], requested: str) -> str:
    if array.dtype.kind == "b":
        return "0-1"
    if requested == "auto" and array.dtype.kind == "u":
        return "0-255" if array.dtype.itemsize == 1 else "0-65535"
    # From the values as sent: a narrower type could round them into a range.
    least, most = float(array.min()), float(array.max())
    if not (math.isfinite(least) and math.isfinite(most)):
        raise unprocessable("the array contains NaN or infinity", "send finite values")
    for name in FLOAT_RANGES if requested == "auto" else (requested,):
        if BOUNDS[name][0] <= least and most <= BOUNDS[name][1]:
            return name
    accepted = "0-1, -1-1 or 0-255" if requested == "auto" else f"the input_range {requested}"
    raise unprocessable(
        f"the array's values range from {least:g} to {most:g}", f"send values within {accepted}"
    )


def _to_uint8(array: npt.NDArray[Any], value_range: str) -> npt.NDArray[np.uint8]:
    return strips.to_uint8(array, _conversion(array.dtype, value_range))


def _conversion(dtype: np.dtype[Any], value_range: str) -> strips.Conversion:
    if dtype.kind == "b":
        return lambda strip: np.where(strip, np.uint8(255), np.uint8(0))
    if value_range == "0-65535":
        return lambda strip: ((strip.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if value_range == "0-255" and dtype.kind == "u":
        return lambda strip: strip.astype(np.uint8)
    least, most = BOUNDS[value_range]
    scale = 255.0 / (most - least)
    return lambda strip: np.rint(strip.astype(np.float32) * scale - least * scale).astype(np.uint8)


def _to_rgb(image: npt.NDArray[np.uint8], options: Options, channels: int) -> RGBImage:
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    rgb = image[:, :, 2::-1] if options.input_color == "bgr" else image[:, :, :3]
    if channels == 4 and image.shape[2] == 4:
        return np.concatenate((rgb, image[:, :, 3:]), axis=2)
    return np.ascontiguousarray(rgb)
