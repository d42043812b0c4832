"""NPY files and arrays of numbers -> UInt8[H, W, 3] RGB."""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from d2serve.detections import Picture
from d2serve.errors import RequestError, bad_request, too_large, unprocessable
from d2serve.messages import Options
from d2serve.settings import Settings

MAGIC = b"\x93NUMPY"
# Behind the magic bytes and two of version.
LENGTH_AT = 8
# By version: how many bytes tell the header's length, and numpy's reader of it.
HEADERS: dict[tuple[int, ...], tuple[int, Any]] = {
    (1, 0): (2, np.lib.format.read_array_header_1_0),
    (2, 0): (4, np.lib.format.read_array_header_2_0),
}
# numpy's own limit was 32 for long; a picture needs four at most.
MOST_DIMENSIONS = 32


def read_npy(body: bytes, max_header_bytes: int) -> npt.NDArray[np.generic]:
    """The array, on the body's own memory, in the dtype and the byte order of the file.

    Raises:
        RequestError: 400 not a whole NPY file, 413 a longer header, 422 no numbers.
    """
    if not body.startswith(MAGIC):
        raise bad_request(
            "the body is not an NPY file",
            "write the array with numpy.save, not with array.tobytes()",
        )
    shape, fortran_order, dtype, offset = _read_header(body, max_header_bytes)
    if dtype.kind not in "buif":
        raise unprocessable(
            "the array holds no numbers", "send uint8, uint16, bool, float16, float32 or float64"
        )
    _require_values(shape, dtype, len(body) - offset)
    values = np.frombuffer(body, dtype, count=math.prod(shape), offset=offset)
    return values.reshape(shape, order="F" if fortran_order else "C")


def _require_values(shape: tuple[int, ...], dtype: np.dtype[np.generic], present: int) -> None:
    # What is claimed may have thousands of digits, and is not repeated.
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > present:
        raise bad_request(
            f"the header claims more than the {present} bytes that follow it",
            "send the file of numpy.save whole",
        )
    if len(shape) > MOST_DIMENSIONS:
        raise unprocessable(
            f"an array of {len(shape)} dimensions cannot be a picture",
            "send HxW, HxWxC, CxHxW or several of one size with a leading N",
        )


def _read_header(
    body: bytes, max_bytes: int
) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    """Shape, whether Fortran order, dtype, and where the values start."""
    version = tuple(body[len(MAGIC) : LENGTH_AT])
    if version not in HEADERS:
        raise _unreadable()
    width, read = HEADERS[version]
    length = int.from_bytes(body[LENGTH_AT : LENGTH_AT + width], "little")
    if length > max_bytes:
        raise too_large(
            f"the NPY header claims {length} bytes; at most {max_bytes} are accepted",
            "write the array with numpy.save",
        )
    file = io.BytesIO(body)
    file.seek(LENGTH_AT)
    try:
        shape, fortran_order, dtype = read(file, max_header_size=max_bytes)
    except Exception as error:  # hostile headers make numpy's parser raise almost anything
        raise _unreadable() from error
    return shape, fortran_order, dtype, file.tell()


def _unreadable() -> RequestError:
    return bad_request("the NPY header cannot be read", "write the array with numpy.save")


CHANNELS = (1, 3, 4)
DTYPES = ("uint8", "uint16", "bool", "float16", "float32", "float64")
# Least and greatest value.
BOUNDS = {"0-255": (0.0, 255.0), "0-1": (0.0, 1.0), "-1-1": (-1.0, 1.0), "0-65535": (0.0, 65535.0)}
FLOAT_RANGES = ("0-1", "-1-1", "0-255")


@dataclass(frozen=True)
class ArrayPictures:
    """The pictures of one array, UInt8[H, W, 3] RGB each.

    `value_range` is what its values were in; `is_batch` tells a leading N, of 1 too.
    """

    pictures: tuple[Picture, ...]
    value_range: str
    is_batch: bool


def read_array(
    array: npt.NDArray[np.generic], options: Options, settings: Settings
) -> ArrayPictures:
    """Reads an array as one picture, or as several with a leading N.

    HxW, HxWxC and CxHxW with C in 1, 3, 4 (a fourth channel is dropped), in the options' layout,
    colour order and range of values; uint8, uint16, bool, float16, float32 or float64. Of a range
    `auto`, uint8 is 0-255, uint16 0-65535 and bool 0-1; floats are 0-1 where all are within it,
    else -1-1, else 0-255.

    Raises:
        RequestError: 413 too many pixels or pictures, 422 not a picture, or values out of range.
    """
    pictures = _as_nhwc(array, options.input_layout)
    _require_within_limits(pictures.shape, settings)
    _require_picture_type(array.dtype)
    value_range = _value_range(pictures, options.input_range)
    rgb = (_to_rgb(_to_uint8(picture, value_range), options) for picture in pictures)
    return ArrayPictures(tuple(rgb), value_range, is_batch=array.ndim == 4)


def _as_nhwc(array: npt.NDArray[np.generic], layout: str) -> npt.NDArray[np.generic]:
    if not array.size or array.ndim not in (2, 3, 4):
        raise _not_a_picture_shape(array.shape)
    if array.ndim == 2:
        return array[None, :, :, None]
    last, first = array.shape[-1] in CHANNELS, array.shape[-3] in CHANNELS
    if last and layout != "chw":
        return array.reshape(-1, *array.shape[-3:])
    if first and layout != "hwc":
        return np.moveaxis(array.reshape(-1, *array.shape[-3:]), 1, 3)
    if array.ndim == 3 and not (first or last):
        return array[:, :, :, None]
    raise _not_a_picture_shape(array.shape)


def _require_within_limits(shape_nhwc: tuple[int, ...], settings: Settings) -> None:
    count, height, width, _ = shape_nhwc
    if count > settings.max_images_per_request:
        raise too_large(
            f"the array holds {count} pictures; at most {settings.max_images_per_request} are "
            "accepted",
            "send fewer at a time, or raise max_images_per_request in model-config.yaml",
        )
    if height * width > settings.max_image_pixels:
        raise too_large(
            f"the array is {width}x{height}; at most {settings.max_image_pixels} pixels are "
            "accepted",
            "send a smaller picture, or raise max_image_pixels in model-config.yaml",
        )


def _require_picture_type(dtype: np.dtype[np.generic]) -> None:
    if dtype.newbyteorder("=") not in DTYPES:
        raise unprocessable(
            f"an array of {dtype.name} cannot be a picture", f"send {', '.join(DTYPES)}"
        )


def _value_range(array: npt.NDArray[Any], wanted: str) -> str:
    if array.dtype.kind == "b":
        return "0-1"
    if wanted == "auto" and array.dtype.kind == "u":
        return "0-255" if array.dtype.itemsize == 1 else "0-65535"
    least, most = float(array.min()), float(array.max())
    if not (math.isfinite(least) and math.isfinite(most)):
        raise unprocessable("the array holds NaN or infinity", "send finite values")
    # Told from the values as sent: a narrower type could round them into a range.
    for name in FLOAT_RANGES if wanted == "auto" else (wanted,):
        if BOUNDS[name][0] <= least and most <= BOUNDS[name][1]:
            return name
    raise unprocessable(
        f"the array's values run from {least:g} to {most:g}",
        f"send values within {wanted}"
        if wanted != "auto"
        else "send values within 0-1, -1-1 or 0-255",
    )


def _to_uint8(array: npt.NDArray[Any], value_range: str) -> npt.NDArray[np.uint8]:
    least, most = BOUNDS[value_range]
    if array.dtype.kind == "b":
        return np.where(array, np.uint8(255), np.uint8(0))
    if value_range == "0-255":
        return array.astype(np.uint8) if array.dtype.kind == "u" else _rounded(array, 1.0, 0.0)
    if value_range == "0-65535":
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    scale = 255.0 / (most - least)
    return _rounded(array, scale, -least * scale)


def _rounded(array: npt.NDArray[Any], scale: float, offset: float) -> npt.NDArray[np.uint8]:
    return np.rint(array.astype(np.float32) * scale + offset).astype(np.uint8)


def _to_rgb(picture: npt.NDArray[np.uint8], options: Options) -> Picture:
    if picture.shape[2] == 1:
        return np.repeat(picture, 3, axis=2)
    colours = picture[:, :, 2::-1] if options.input_color == "bgr" else picture[:, :, :3]
    return np.ascontiguousarray(colours)


def _not_a_picture_shape(shape: tuple[int, ...]) -> RequestError:
    return unprocessable(
        f"an array of shape {shape} cannot be a picture, or is not in the input_layout asked for",
        "send HxW, HxWxC or CxHxW with C in 1, 3, 4, or several of one size with a leading N",
    )
