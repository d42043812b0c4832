"""PNG files: chunks other than those of the first image are removed."""

import re
import zlib
from collections.abc import Iterator

from d2serve.inputs.formats.exif import EXIF, RAW_EXIF, XMP_TEXT, orientation_of
from d2serve.inputs.formats.image_parts import (
    MAX_PARTS,
    ImageParts,
    too_many_parts,
    without,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHUNK_TYPE = re.compile(rb"\w{4}")
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
FRAME_CONTROL, TRANSPARENCY = b"fcTL", b"tRNS"
COLOR_TYPE_AT = 25
# Type of the pixels (grey, RGB, palette) -> possible lengths of their transparency.
TRANSPARENCY_BYTES = {b"\0": (2,), b"\2": (6,), b"\3": range(1, 257)}
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# Text chunks with these keywords can contain an orientation.
KEYWORDS = {name.encode(): name for name in (RAW_EXIF, XMP_TEXT)}
MAX_TEXT_BYTES = 1_000_000
# Length, type and checksum have four bytes each.
OVERHEAD = 12


def png_parts(body: bytes) -> ImageParts:
    """Keep the header, the palette, the transparency and the pixels of the first image.

    Other chunks are removed. Texts are inflated only if their keyword refers to EXIF or XMP data,
    and only the last one with each keyword.

    Raises:
        RequestError: 400, more than MAX_PARTS chunks.
    """
    removed: list[tuple[int, int]] = []
    metadata: dict[str, tuple[bytes, bytes]] = {}
    frames, has_default = 0, False
    for count, (kind, start, end) in enumerate(_chunks(body), start=1):
        if count > MAX_PARTS:
            raise too_many_parts("PNG chunks", MAX_PARTS)
        if kind in PIXEL_CHUNKS or (kind == TRANSPARENCY and _is_valid(body, start, end)):
            has_default |= kind == b"IDAT" and not frames
            continue
        removed.append((start, end))
        frames += kind == FRAME_CONTROL
        content = body[start + 8 : end - 4]
        if kind == b"eXIf":
            metadata[EXIF] = (kind, content)
        elif kind in TEXTS and (keyword := content[:32].partition(b"\0")[0]) in KEYWORDS:
            metadata[KEYWORDS[keyword]] = (kind, content)
    info = {key: _content(*found) for key, found in metadata.items()}
    return ImageParts(without(body, removed), orientation_of(info), max(1, frames + has_default))


def _chunks(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each chunk, up to the first that is not a chunk or is truncated.

    A truncated chunk that is not needed ends at the end of the file.
    """
    position = len(SIGNATURE)
    while position < len(body):
        kind = body[position + 4 : position + 8]
        if not CHUNK_TYPE.fullmatch(kind):
            return
        end = position + int.from_bytes(body[position : position + 4], "big") + OVERHEAD
        yield kind, position, min(end, len(body))
        if kind == b"IEND":
            return
        position = end


def _is_valid(body: bytes, start: int, end: int) -> bool:
    """Return whether a transparency chunk fits the type of the pixels, and its checksum fits it."""
    lengths = TRANSPARENCY_BYTES.get(body[COLOR_TYPE_AT : COLOR_TYPE_AT + 1], ())
    checksum = zlib.crc32(body[start + 4 : end - 4]).to_bytes(4, "big")
    return end - start - OVERHEAD in lengths and body[end - 4 : end] == checksum


def _content(kind: bytes, content: bytes) -> bytes:
    """The value of a chunk as Pillow reads it; empty if it is damaged."""
    if kind == b"eXIf":
        return content
    text = content.partition(b"\0")[2]
    is_deflated = kind == b"zTXt"
    if is_deflated:
        text = text[1:]
    elif kind == b"iTXt":
        is_deflated = text[:1] != b"\0"
        text = text[2:].partition(b"\0")[2].partition(b"\0")[2]
    if is_deflated:
        try:
            text = zlib.decompressobj().decompress(text, MAX_TEXT_BYTES)
        except zlib.error:
            return b""
    return text
