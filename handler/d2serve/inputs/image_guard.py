"""Bounds on the work that image files can cause in decoders."""

import io
import re
from collections.abc import Iterator

from d2serve.errors import RequestError, bad_request

MOST_READS = 300_000
# Markers that open a segment, or stand alone; within coded data FF comes as FF 00.
JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
JPEG_START = b"\xff\xd8"
JPEG_ALONE = (0x01, 0xD8)
JPEG_END, JPEG_SCAN = 0xD9, 0xDA
# An ICC profile takes up to 255 segments; the usual progressive script has 10 scans.
MOST_JPEG_SEGMENTS = 300
MOST_JPEG_SCANS = 32
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_DEFLATED = (b"iCCP", b"zTXt", b"iTXt")
MOST_PNG_CHUNKS = 50_000
MOST_PNG_DEFLATED = 64


def guarded_file(body: bytes) -> io.BytesIO:
    """The bytes as a file for a decoder, with a bound on how often it may read.

    Raises:
        RequestError: 400, now or while reading, for a file of too many parts.
    """
    if body.startswith(JPEG_START):
        _check_jpeg(body)
    elif body.startswith(PNG_SIGNATURE):
        _check_png(body)
    return MeteredFile(body)


class MeteredFile(io.BytesIO):
    """Bytes that may be read from MOST_READS times."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._left = MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file; raises RequestError: 400 where the reads are used up."""
        self._left -= 1
        if self._left < 0:
            raise _too_many_parts()
        return super().read(size)


def _check_jpeg(body: bytes) -> None:
    scans = 0
    for count, marker in enumerate(_jpeg_segments(body), start=1):
        scans += marker == JPEG_SCAN
        if count > MOST_JPEG_SEGMENTS or scans > MOST_JPEG_SCANS:
            raise _too_many_parts()


def jpeg_has_end(body: bytes) -> bool:
    """Whether the first picture of a JPEG goes on to its end marker."""
    return JPEG_END in _jpeg_segments(body)


def _jpeg_segments(body: bytes) -> Iterator[int]:
    """The markers to the end of the first picture; phones append others, and films."""
    position = len(JPEG_START)
    while found := JPEG_MARKER.search(body, position):
        marker, position = found[1][0], found.end()
        yield marker
        if marker == JPEG_END:
            return
        if marker not in JPEG_ALONE:
            position += int.from_bytes(body[position : position + 2], "big")


def _check_png(body: bytes) -> None:
    deflated = 0
    for count, kind in enumerate(_png_chunks(body), start=1):
        deflated += kind in PNG_DEFLATED
        if count > MOST_PNG_CHUNKS or deflated > MOST_PNG_DEFLATED:
            raise _too_many_parts()


def _png_chunks(body: bytes) -> Iterator[bytes]:
    position = len(PNG_SIGNATURE)
    while position < len(body):
        length = int.from_bytes(body[position : position + 4], "big")
        yield body[position + 4 : position + 8]
        # Length, type and checksum take four bytes each.
        position += length + 12


def _too_many_parts() -> RequestError:
    return bad_request(
        "the image file consists of too many parts", "save it anew with any image program"
    )
