"""NPY files (`numpy.save`) -> arrays, without a copy and without unpickling."""

import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from handler.errors import RequestError, bad_request, too_large, unprocessable

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
