"""The parts of an image file that determine its pixels."""

import struct
import zlib
from dataclasses import dataclass

from PIL import Image
from PIL.ExifTags import Base as ExifTag

from d2serve.errors import RequestError, bad_request

# Parts that are examined one by one in Python; more of them take seconds.
MAX_PARTS = 100_000
MAX_SUB_BLOCKS = 2_000_000
WHITE_16_BIT = 65_535
# Pillow's exceptions for damaged files. Others, such as MemoryError, are faults of this process.
PILLOW_ERRORS = (
    OSError, EOFError, SyntaxError, ValueError, TypeError, IndexError, KeyError, OverflowError,
    ZeroDivisionError, struct.error, zlib.error, Warning,
)  # fmt: skip


@dataclass(frozen=True)
class ImageParts:
    """An image file without metadata, and the properties that the metadata determine.

    Attributes:
        body: the file with its first frame, for a decoder.
        orientation: the EXIF orientation, 1 to 8; None without a valid one.
        frames: number of frames of the original file.
        kind: the kind of its pixels, if decoders may not support it.
        is_rare: whether decoders that accept the header may still not support the pixels.
        white: the largest value of 16-bit pixels.
        is_inverted: whether 0 means white in the grey pixels.
    """

    body: bytes
    orientation: int | None = None
    frames: int = 1
    kind: str = ""
    is_rare: bool = False
    white: int = WHITE_16_BIT
    is_inverted: bool = False


def orientation_in(image: Image.Image) -> int | None:
    """The orientation in the metadata of an opened image; None if they are damaged."""
    try:
        orientation = image.getexif().get(ExifTag.Orientation)
    except (*PILLOW_ERRORS, AttributeError):
        return None
    return orientation if orientation in range(1, 9) else None


def without(body: bytes, ranges: list[tuple[int, int]]) -> bytes:
    """The bytes outside of ascending ranges [start, end)."""
    if not ranges:
        return body
    starts = [0, *(end for _, end in ranges)]
    ends = [*(start for start, _ in ranges), len(body)]
    view = memoryview(body)
    return b"".join(view[start:end] for start, end in zip(starts, ends, strict=True))


def damaged() -> RequestError:
    """400: the file is not complete, or not as its writer wrote it."""
    return bad_request(
        "the image is truncated or damaged", "send the complete, unmodified image file"
    )


def too_many_parts(parts: str, limit: int) -> RequestError:
    """400: examining the file would take too long."""
    return bad_request(
        f"the image file has more than {limit} {parts}",
        "open it in an image editor and save it again",
    )
