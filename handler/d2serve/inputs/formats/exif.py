"""The orientation in EXIF and XMP metadata, by Pillow's rules.

Pillow itself copies the values of all tags, also of tags that claim the same bytes: minutes of work
in a hostile file.
"""

import re
import struct
from collections.abc import Mapping

from d2serve.inputs.formats.tiff_directory import INTEGERS, SIZES

# Keys of `Image.info` in Pillow.
EXIF, XMP, RAW_EXIF, XMP_TEXT = "exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp"
PREFIX = b"Exif\0\0"
VERSIONS = {b"II*\0": "<", b"MM\0*": ">", b"II\0*": "<", b"MM*\0": ">"}
ORIENTATION, BYTE = 0x0112, 1
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
# Lines of a raw profile in a PNG before its hexadecimal digits.
PROFILE_HEAD_LINES = 3
ENTRY_BYTES = 12


def orientation_of(info: Mapping[str, bytes]) -> int | None:
    """The orientation, 1 to 8; None without a valid one, or if the EXIF data are damaged.

    Args:
        info: metadata under the keys EXIF, XMP, RAW_EXIF and XMP_TEXT.
    """
    try:
        exif = info[EXIF] if EXIF in info else _from_profile(info.get(RAW_EXIF, b""))
        orientation = _in_exif(exif)
    except (struct.error, ValueError):
        return None
    if orientation is None:
        found = XMP_ORIENTATION.search(info.get(XMP_TEXT) or info.get(XMP, b""))
        orientation = int(found[1]) if found else None
    return orientation if orientation in range(1, 9) else None


def _from_profile(text: bytes) -> bytes:
    return bytes.fromhex(b"".join(text.split(b"\n")[PROFILE_HEAD_LINES:]).decode("ascii"))


def _in_exif(exif: bytes) -> int | None:
    """The orientation, also if it is not valid; None without one.

    Raises:
        struct.error: the header is truncated.
        ValueError: the header is not that of EXIF data.
    """
    start = 0
    while exif.startswith(PREFIX, start):
        start += len(PREFIX)
    if start == len(exif):
        return None
    order = VERSIONS.get(exif[start : start + 4])
    if order is None:
        raise ValueError("not EXIF data")
    (directory,) = struct.unpack_from(f"{order}I", exif, start + 4)
    return _in_directory(memoryview(exif)[start:], order, directory)


def _in_directory(data: memoryview, order: str, start: int) -> int | None:
    """The orientation among the tags up to the first with values out of the data."""
    orientation = None
    try:
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for position in range(start + 2, start + 2 + count * ENTRY_BYTES, ENTRY_BYTES):
            tag, kind, values, offset = struct.unpack_from(f"{order}HHII", data, position)
            size = values * SIZES.get(kind, 0)
            if size > 4 and offset + size > len(data):
                break
            if tag == ORIENTATION and size:
                at = offset if size > 4 else position + 8
                orientation = _value(data, order, kind, at)
    except struct.error:
        return orientation
    return orientation


def _value(data: memoryview, order: str, kind: int, position: int) -> int:
    """The first value of a tag; 0, which is not an orientation, if it is not an integer."""
    if kind not in INTEGERS or kind == BYTE:
        return 0
    (value,) = struct.unpack_from(order + INTEGERS[kind], data, position)
    return int(value)
