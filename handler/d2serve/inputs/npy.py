"""NPY files -> arrays of numbers."""

import math
import re
from itertools import permutations

import numpy as np
import numpy.typing as npt

from d2serve.errors import RequestError, bad_request, too_large, unprocessable
from d2serve.inputs.arrays import DTYPES, SHAPES
from d2serve.inputs.formats.unsupported import unsupported_kind

NPY_MAGIC = b"\x93NUMPY"
# By version: the number of bytes of the header's length. The versions differ otherwise in the
# encoding of field names, which numeric arrays do not have.
LENGTH_BYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
# The header's length follows the magic bytes and two bytes of version.
LENGTH_AT = 8
MAX_HEADER_BYTES = 10_000
# numpy's own limit was 32 for a long time; images need four at most.
MAX_DIMENSIONS = 32
USE_NUMPY_SAVE = "write the array with numpy.save"
# The header is a dictionary as Python source with three entries in any order. numpy parses it with
# Python's compiler, which fails at times when threads use it at once (before 3.11.8 and 3.12.2,
# CPython's issue 106905). Python 2 wrote 4 as 4L.
VALUES = {
    "descr": r"""['"](?P<descr>[^'"\\]*)['"]""",
    "fortran_order": r"(?P<fortran_order>True|False)",
    "shape": r"\((?P<shape>\s*(?:[0-9]{1,18}L?\s*,\s*)*(?:[0-9]{1,18}L?\s*)?)\)",
}
HEADERS = [
    re.compile(rf"\s*\{{\s*{entries}\s*(?:,\s*)?\}}\s*", re.ASCII)
    for entries in map(
        r"\s*,\s*".join,
        permutations(rf"""['"]{key}['"]\s*:\s*{value}""" for key, value in VALUES.items()),
    )
]
# A list of fields.
STRUCTURED = re.compile(r"""['"]descr['"]\s*:\s*\[""", re.ASCII)
# Byte order, kind and size, and the unit of dates; `a` is deprecated.
DTYPE = re.compile(r"[<>=|]?[?b-zA-Z][0-9]{0,9}(?:\[\w{1,10}\])?", re.ASCII)


def read_npy(body: bytes) -> npt.NDArray[np.generic]:
    """Parse an NPY file without copying its values, in the file's dtype and byte order.

    Raises:
        RequestError: 400 not a complete NPY file, 413 header too long, 422 not numeric, no values,
            or too many dimensions.
    """
    if not body.startswith(NPY_MAGIC):
        kind = unsupported_kind(body)
        received = f"{kind}, " if kind else ""
        raise bad_request(
            f"the body is {received}not an NPY file", f"{USE_NUMPY_SAVE}, not with array.tobytes()"
        )
    header, offset = _header(body)
    shape, fortran_order, dtype = _parse(header)
    if dtype.kind not in "buif":
        raise _not_numeric()
    _check_claim(shape, dtype, len(body) - offset)
    values = np.frombuffer(body, dtype, count=math.prod(shape), offset=offset)
    return values.reshape(shape, order="F" if fortran_order else "C")


def _header(body: bytes) -> tuple[str, int]:
    """The header's text, and the offset of the values."""
    width = LENGTH_BYTES.get((*body[len(NPY_MAGIC) : LENGTH_AT],))
    if width is None:
        raise bad_request("the version of the NPY file is not supported", USE_NUMPY_SAVE)
    start = LENGTH_AT + width
    length = int.from_bytes(body[LENGTH_AT:start], "little")
    if length > MAX_HEADER_BYTES:
        raise too_large(
            f"the NPY header claims {length} bytes, the limit is {MAX_HEADER_BYTES}",
            USE_NUMPY_SAVE,
        )
    if start + length > len(body):
        raise _unreadable()
    return body[start : start + length].decode("latin-1"), start + length


def _parse(header: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Shape, whether the order is Fortran's, and dtype."""
    if STRUCTURED.search(header):
        raise _not_numeric()
    found = next(filter(None, (pattern.fullmatch(header) for pattern in HEADERS)), None)
    if found is None or not DTYPE.fullmatch(found["descr"]):
        raise _unreadable()
    try:
        dtype = np.dtype(found["descr"])
    except (TypeError, ValueError) as error:
        raise _unreadable() from error
    shape = tuple(map(int, re.findall("[0-9]+", found["shape"])))
    return shape, found["fortran_order"] == "True", dtype


def _check_claim(shape: tuple[int, ...], dtype: np.dtype[np.generic], present: int) -> None:
    # A claimed size may have hundreds of digits, so the message does not repeat it.
    if math.prod(shape) * dtype.itemsize > present:
        raise bad_request(
            f"the NPY header claims more than the {present} bytes that follow it",
            "send the complete file that numpy.save wrote",
        )
    if 0 in shape:
        raise unprocessable("the array has no values", f"send {SHAPES}")
    if len(shape) > MAX_DIMENSIONS:
        raise unprocessable(f"the array has {len(shape)} dimensions", f"send {SHAPES}")


def _unreadable() -> RequestError:
    return bad_request("the NPY header cannot be read", USE_NUMPY_SAVE)


def _not_numeric() -> RequestError:
    return unprocessable("the array's dtype is not numeric", f"send {', '.join(DTYPES)}")
