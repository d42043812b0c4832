"""JPEG files: segments before the first scan that do not affect the pixels are removed."""

import re
from collections.abc import Iterator

from d2serve.inputs.formats.exif import EXIF, XMP, orientation_of
from d2serve.inputs.formats.image_parts import (
    MAX_PARTS,
    ImageParts,
    too_many_parts,
    without,
)

START = b"\xff\xd8"
# Markers that start a segment or stand alone; within entropy-coded data FF is sent as FF 00.
MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
STANDALONE = (0x01, 0xD8)
END, SCAN, COMMENT = 0xD9, 0xDA, 0xFE
APP0, APP1, APP14 = 0xE0, 0xE1, 0xEE
APPLICATIONS = range(APP0, 0xF0)
# Start of a frame, of all codings; C4, C8 and CC are other segments.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Baseline, extended and progressive, with Huffman or arithmetic coding.
COMMON_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
COMMON_COMPONENTS = (1, 3, 4)
LOSSLESS_FRAMES = (0xC3, 0xC7, 0xCB, 0xCF)
# The usual progressive script has 10 scans.
MAX_SCANS = 32
# Segments that determine the color space, and libjpeg's minimum of their lengths.
COLOR_SEGMENTS = ((APP0, b"JFIF\0", 14), (APP14, b"Adobe", 12))
EXIF_HEADER, XMP_HEADER = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


def jpeg_parts(body: bytes) -> ImageParts:
    """Remove comments and application segments, except those that determine the color space.

    The images and videos that phones append are not frames.

    Raises:
        RequestError: 400, more than MAX_SCANS scans or MAX_PARTS segments.
    """
    _check_limits(body)
    removed: list[tuple[int, int]] = []
    exif: list[bytes] = []
    xmp, kind = b"", ""
    for marker, start in _segments(body):
        if marker == SCAN:
            break
        end = _end(body, start)
        if marker in FRAMES:
            kind = kind or _rare_kind(marker, body[start + 2 : start + 8])
        elif end <= len(body) and _is_metadata(marker, body, start, end):
            removed.append((start - 2, end))
            if marker == APP1 and body.startswith(EXIF_HEADER, start + 2):
                exif.append(body[start + 2 + len(EXIF_HEADER) : end])
            elif marker == APP1 and body.startswith(XMP_HEADER, start + 2):
                xmp = body[start + 2 + len(XMP_HEADER) : end]
    info = {key: value for key, value in ((EXIF, b"".join(exif)), (XMP, xmp)) if value}
    return ImageParts(without(body, removed), orientation_of(info), kind=kind, is_rare=bool(kind))


def jpeg_has_end(body: bytes) -> bool:
    """Return whether the first image of a JPEG file has an end marker."""
    return any(marker == END for marker, _ in _segments(body))


def jpeg_is_rgb(body: bytes) -> bool:
    """Return whether a JPEG file stores R, G and B instead of Y, Cb and Cr, by libjpeg's rules.

    A JFIF segment means Y, Cb, Cr; else an Adobe segment decides, else the component ids do.
    """
    adobe_transform = None
    component_ids = b""
    for marker, start in _segments(body):
        content = body[start + 2 : start + 2 + 15]
        if marker == APP0 and content.startswith(b"JFIF\0"):
            return False
        if marker == APP14 and content.startswith(b"Adobe"):
            adobe_transform = content[11:12]
        elif marker in FRAMES:
            components = content[5:6]
            component_ids = content[6:15:3] if components == b"\x03" else b""
        elif marker == SCAN:
            break
    if adobe_transform is not None:
        return len(component_ids) == 3 and adobe_transform == b"\0"
    return component_ids == b"RGB"


def _check_limits(body: bytes) -> None:
    scans = 0
    for count, (marker, _) in enumerate(_segments(body), start=1):
        scans += marker == SCAN
        if count > MAX_PARTS:
            raise too_many_parts("JPEG segments", MAX_PARTS)
        if scans > MAX_SCANS:
            raise too_many_parts("JPEG scans", MAX_SCANS)


def _segments(body: bytes) -> Iterator[tuple[int, int]]:
    """The markers of the first image, each with the position after it."""
    position = len(START)
    while found := MARKER.search(body, position):
        marker, position = found[1][0], found.end()
        yield marker, position
        if marker == END:
            return
        if marker not in STANDALONE:
            position = _end(body, position)


def _end(body: bytes, start: int) -> int:
    """The end of a segment by its length, which includes the two bytes of the length itself."""
    return start + max(2, int.from_bytes(body[start : start + 2], "big"))


def _is_metadata(marker: int, body: bytes, start: int, end: int) -> bool:
    if marker not in APPLICATIONS:
        return marker == COMMENT
    return not any(
        marker == code and body.startswith(name, start + 2) and end - start - 2 >= length
        for code, name, length in COLOR_SEGMENTS
    )


def _rare_kind(marker: int, head: bytes) -> str:
    """The kind of pixels that decoders may not support, or an empty string."""
    if len(head) < 6:
        return ""
    precision, components = head[0], head[5]
    if marker in COMMON_FRAMES and precision == 8 and components in COMMON_COMPONENTS:
        return ""
    coding = "lossless " if marker in LOSSLESS_FRAMES else ""
    coding = coding or ("" if marker in COMMON_FRAMES else "hierarchical ")
    return f"a {coding}JPEG with {precision} bits per channel and channels: {components}"
