"""WebP files: chunks other than those of the first image are removed."""

from collections.abc import Iterator

from d2serve.inputs.formats.exif import EXIF, XMP, orientation_of
from d2serve.inputs.formats.image_parts import (
    MAX_PARTS,
    ImageParts,
    too_many_parts,
    without,
)

RIFF, WEBP = b"RIFF", b"WEBP"
HEADER_BYTES = 12
# The extended header is the first chunk.
FLAGS_AT = HEADER_BYTES + 8
FRAME, EXTENDED = b"ANMF", b"VP8X"
PIXEL_CHUNKS = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", FRAME, EXTENDED)
# Flags of the extended header: an ICC profile, EXIF or XMP data follow, else they do not count.
ICC_FLAG, EXIF_FLAG, XMP_FLAG = 0x20, 0x08, 0x04
METADATA = {b"EXIF": (EXIF, EXIF_FLAG), b"XMP ": (XMP, XMP_FLAG)}
METADATA_FLAGS = ICC_FLAG | EXIF_FLAG | XMP_FLAG


def webp_parts(body: bytes) -> ImageParts:
    """Keep the chunks of the first frame.

    Raises:
        RequestError: 400, more than MAX_PARTS chunks.
    """
    claimed = int.from_bytes(body[4:8], "little")
    flags = (
        body[FLAGS_AT] if body.startswith(EXTENDED, HEADER_BYTES) and len(body) > FLAGS_AT else 0
    )
    removed: list[tuple[int, int]] = []
    info: dict[str, bytes] = {}
    frames = dropped = 0
    for count, (kind, start, end) in enumerate(_chunks(body, claimed + 8), start=1):
        if count > MAX_PARTS:
            raise too_many_parts("WebP chunks", MAX_PARTS)
        frames += kind == FRAME
        if kind in PIXEL_CHUNKS and (kind != FRAME or frames == 1):
            continue
        dropped += end - start
        removed.append((start, min(end, len(body))))
        key, flag = METADATA.get(kind, ("", 0))
        if flag & flags:
            info.setdefault(key, _content(body, start))
    if removed:
        # A file that was truncated in its pixels stays truncated.
        body = _with_header(body, claimed - dropped, flags & ~METADATA_FLAGS)
    return ImageParts(without(body, removed), orientation_of(info), max(1, frames))


def _chunks(body: bytes, claimed_end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each chunk; the last may be truncated."""
    position = HEADER_BYTES
    while position + 8 <= min(claimed_end, len(body)):
        size = _size(body, position)
        following = position + 8 + size + size % 2
        yield body[position : position + 4], position, min(following, claimed_end)
        position = following


def _has_flags(body: bytes) -> bool:
    return body.startswith(EXTENDED, HEADER_BYTES) and len(body) > FLAGS_AT


def _size(body: bytes, start: int) -> int:
    return int.from_bytes(body[start + 4 : start + 8], "little")


def _content(body: bytes, start: int) -> bytes:
    return body[start + 8 : start + 8 + _size(body, start)]


def _with_header(body: bytes, size: int, flags: int) -> bytes:
    changed = bytearray(body)
    changed[4:8] = size.to_bytes(4, "little")
    if _has_flags(body):
        changed[FLAGS_AT] = flags
    return bytes(changed)
