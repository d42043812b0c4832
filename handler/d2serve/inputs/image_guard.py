"""Bounds on the work that image files can cause in decoders."""

import io
import re
from collections.abc import Iterator

from d2serve.errors import RequestError, bad_request

MAX_READS = 300_000
# Markers that start a segment or stand alone; within entropy-coded data FF is sent as FF 00.
JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
JPEG_START = b"\xff\xd8"
JPEG_STANDALONE = (0x01, 0xD8)
JPEG_END, JPEG_SCAN = 0xD9, 0xDA
JPEG_APP0, JPEG_APP14 = 0xE0, 0xEE
# Start of a frame, of all codings; C4, C8 and CC are other segments.
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# An ICC profile has up to 255 segments; the usual progressive script has 10 scans.
MAX_JPEG_SEGMENTS = 300
MAX_JPEG_SCANS = 32
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_DEFLATED = (b"iCCP", b"zTXt", b"iTXt")
MAX_PNG_CHUNKS = 50_000
MAX_PNG_DEFLATED = 64


def guarded_file(body: bytes) -> io.BytesIO:
    """A file object for a decoder that limits the number of reads.

    Raises:
        RequestError: 400, now or while reading, if the file has too many segments or chunks.
    """
    if body.startswith(JPEG_START):
        _check_jpeg(body)
    elif body.startswith(PNG_SIGNATURE):
        _check_png(body)
    return ReadLimitedFile(body)


class ReadLimitedFile(io.BytesIO):
    """Bytes that can be read from MAX_READS times."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._remaining = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like any file; raises RequestError (400) when the reads are used up."""
        self._remaining -= 1
        if self._remaining < 0:
            raise _too_many_parts("data blocks", MAX_READS)
        return super().read(size)


def jpeg_has_end(body: bytes) -> bool:
    """Return whether the first image of a JPEG file has an end marker."""
    return any(marker == JPEG_END for marker, _ in _jpeg_segments(body))


def jpeg_is_rgb(body: bytes) -> bool:
    """Return whether a JPEG file stores R, G and B instead of Y, Cb and Cr, by libjpeg's rules.

    A JFIF segment means Y, Cb, Cr; else an Adobe segment decides, else the component ids do.
    """
    adobe_transform = None
    component_ids = b""
    for marker, start in _jpeg_segments(body):
        content = body[start + 2 : start + 2 + 15]
        if marker == JPEG_APP0 and content.startswith(b"JFIF\0"):
            return False
        if marker == JPEG_APP14 and content.startswith(b"Adobe"):
            adobe_transform = content[11:12]
        elif marker in JPEG_FRAMES:
            components = content[5:6]
            component_ids = content[6:15:3] if components == b"\x03" else b""
        elif marker == JPEG_SCAN:
            break
    if adobe_transform is not None:
        return len(component_ids) == 3 and adobe_transform == b"\0"
    return component_ids == b"RGB"


def _check_jpeg(body: bytes) -> None:
    scans = 0
    for count, (marker, _) in enumerate(_jpeg_segments(body), start=1):
        scans += marker == JPEG_SCAN
        if count > MAX_JPEG_SEGMENTS:
            raise _too_many_parts("JPEG segments", MAX_JPEG_SEGMENTS)
        if scans > MAX_JPEG_SCANS:
            raise _too_many_parts("JPEG scans", MAX_JPEG_SCANS)


def _jpeg_segments(body: bytes) -> Iterator[tuple[int, int]]:
    """The markers of the first image, each with the position after it.

    Phones append further images and videos.
    """
    position = len(JPEG_START)
    while found := JPEG_MARKER.search(body, position):
        marker, position = found[1][0], found.end()
        yield marker, position
        if marker == JPEG_END:
            return
        if marker not in JPEG_STANDALONE:
            position += int.from_bytes(body[position : position + 2], "big")


def _check_png(body: bytes) -> None:
    deflated = 0
    for count, kind in enumerate(_png_chunks(body), start=1):
        deflated += kind in PNG_DEFLATED
        if count > MAX_PNG_CHUNKS:
            raise _too_many_parts("PNG chunks", MAX_PNG_CHUNKS)
        if deflated > MAX_PNG_DEFLATED:
            raise _too_many_parts("compressed PNG text chunks", MAX_PNG_DEFLATED)


def _png_chunks(body: bytes) -> Iterator[bytes]:
    position = len(PNG_SIGNATURE)
    while position < len(body):
        length = int.from_bytes(body[position : position + 4], "big")
        yield body[position + 4 : position + 8]
        # Length, type and checksum have four bytes each.
        position += length + 12


def _too_many_parts(parts: str, limit: int) -> RequestError:
    return bad_request(
        f"the image file has more than {limit} {parts}",
        "open it in an image editor and save it again",
    )
