"""NPY arrays (`numpy.save`) -> UInt8[H, W, 3] RGB."""

import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from handler.errors import RequestError, bad_request, too_large, unprocessable
from handler.pictures import Picture

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 10_000
CHANNELS = (1, 3, 4)


def decode_npy(body: bytes, max_pixels: int, max_images: int) -> list[Picture]:
    """Decodes an array of one picture, or of several with a leading N; RGB, layout told by shape.

    HxW, HxWxC and CxHxW with C in 1, 3, 4 (a fourth channel is dropped); uint8, uint16 (0..65535),
    bool, or float16/32/64: within 0..1, else within -1..1, else within 0..255.

    Raises:
        RequestError: 400 not a whole NPY file, 413 too many pixels or pictures, 422 not a picture.
    """
    pictures = _as_nhwc(_read(body))
    if len(pictures) > max_images:
        raise too_large(
            f"the array holds {len(pictures)} pictures; at most {max_images} are accepted",
            "send fewer at a time, or raise max_images_per_request in model-config.yaml",
        )
    height, width = pictures.shape[1:3]
    if height * width > max_pixels:
        raise too_large(
            f"the array is {width}x{height}; at most {max_pixels} pixels are accepted",
            "send a smaller picture, or raise max_image_pixels in model-config.yaml",
        )
    return [_to_rgb(picture) for picture in _to_uint8(pictures)]


def _read(body: bytes) -> npt.NDArray[np.generic]:
    """The array, on the body's own memory; nothing is unpickled."""
    if not body.startswith(MAGIC):
        raise bad_request(
            "the body is not an NPY file",
            "write the array with numpy.save, not with array.tobytes()",
        )
    shape, fortran_order, dtype, offset = _read_header(body)
    if dtype.kind not in "buf":
        raise _not_a_picture_type(dtype)
    claimed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed > len(body) - offset:
        raise bad_request(
            f"the header claims {claimed} bytes, and {len(body) - offset} follow it",
            "send the file of numpy.save whole",
        )
    values = np.frombuffer(body, dtype, count=math.prod(shape), offset=offset)
    return values.reshape(shape, order="F" if fortran_order else "C")


def _read_header(body: bytes) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    """Shape, whether Fortran order, dtype, and where the values start."""
    file = io.BytesIO(body)
    readers: dict[tuple[int, int], Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        reader = readers[np.lib.format.read_magic(file)]  # type: ignore[no-untyped-call]
        shape, fortran_order, dtype = reader(file, max_header_size=MAX_HEADER_BYTES)
    except Exception as error:  # hostile headers make numpy's parser raise almost anything
        raise bad_request(
            "the NPY header cannot be read", "write the array with numpy.save"
        ) from error
    return shape, fortran_order, dtype, file.tell()


def _as_nhwc(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    if array.size and array.ndim == 2:
        return array[None, :, :, None]
    if array.size and array.ndim == 3:
        if array.shape[-1] in CHANNELS:
            return array[None]
        if array.shape[0] in CHANNELS:
            return array.transpose(1, 2, 0)[None]
        return array[:, :, :, None]
    if array.size and array.ndim == 4:
        if array.shape[-1] in CHANNELS:
            return array
        if array.shape[1] in CHANNELS:
            return array.transpose(0, 2, 3, 1)
    raise unprocessable(
        f"an array of shape {array.shape} cannot be a picture",
        "send HxW, HxWxC or CxHxW with C in 1, 3, 4, or several of one size with a leading N",
    )


def _to_uint8(array: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array.astype(np.uint8, copy=False)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "f" and array.dtype.itemsize <= 8:
        return _float_to_uint8(array)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    raise _not_a_picture_type(array.dtype)


def _float_to_uint8(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    least, most = float(array.min()), float(array.max())
    if not (math.isfinite(least) and math.isfinite(most)):
        raise unprocessable("the array holds NaN or infinity", "send finite values")
    # The range is told from the values as sent: a narrower type could round them into it.
    if least >= 0 and most <= 1:
        scale, offset = 255.0, 0.0
    elif least >= -1 and most <= 1:
        scale, offset = 127.5, 127.5
    elif least >= 0 and most <= 255:
        scale, offset = 1.0, 0.0
    else:
        raise unprocessable(
            f"the array's values run from {least:g} to {most:g}",
            "send values within 0..1, -1..1 or 0..255",
        )
    return np.rint(array.astype(np.float32) * scale + offset).astype(np.uint8)


def _to_rgb(picture: npt.NDArray[np.uint8]) -> Picture:
    colours = picture[:, :, :3] if picture.shape[2] > 1 else np.repeat(picture, 3, axis=2)
    return np.ascontiguousarray(colours)


def _not_a_picture_type(dtype: np.dtype[np.generic]) -> RequestError:
    return unprocessable(
        f"an array of {dtype.name[:40]} cannot be a picture",
        "send uint8, uint16, bool, float16, float32 or float64",
    )
