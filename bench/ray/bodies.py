"""JPEG files of several sizes with the same small image, so that only their transport differs."""

import io
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

SIZES_BYTES = (2_000, 200_000, 2_000_000)
IMAGE_WH = (128, 96)
QUALITIES = range(75, 10, -5)
COMMENT = b"\xff\xfe"
# A comment's length, of two bytes, includes itself.
MAX_CONTENT, SEGMENT_HEAD = 65_533, 4


def size_name(size_bytes: int) -> str:
    """A size as in `2 kB`.

    Examples:
        >>> size_name(200_000), size_name(2_000_000)
        ('200 kB', '2 MB')
    """
    millions = size_bytes >= 1_000_000
    return f"{size_bytes / 1e6:g} MB" if millions else f"{size_bytes / 1e3:g} kB"


def write_bodies(folder: Path, source: Path, sizes: Sequence[int] = SIZES_BYTES) -> list[Path]:
    """Write the image of a file, made small, as JPEG files of exactly these sizes in bytes. Raises
    ValueError for a size that is too small for it."""
    with Image.open(source) as image:
        small = image.convert("RGB").resize(IMAGE_WH)
    content = _encoded(small, min(sizes) - SEGMENT_HEAD)
    files = []
    for size in sizes:
        file = folder / f"{size}.jpg"
        file.write_bytes(padded(content, size))
        files.append(file)
    return files


def padded(jpeg: bytes, size: int) -> bytes:
    """Lengthen a JPEG to `size` bytes by comments of random bytes, which decoders skip, behind its
    first segment. Raises ValueError where it is too long for one."""
    missing = size - len(jpeg)
    if missing < SEGMENT_HEAD:
        raise ValueError(f"size: received {size}, expected {len(jpeg) + SEGMENT_HEAD} or more")
    start = 4 + int.from_bytes(jpeg[4:6], "big")
    return jpeg[:start] + b"".join(_comments(missing)) + jpeg[start:]


def _comments(size: int) -> Iterator[bytes]:
    """Comments of `size` bytes in total."""
    draw = random.Random(0)  # noqa: S311
    while size:
        own = min(size, MAX_CONTENT + SEGMENT_HEAD)
        # The rest must have room for a head.
        own -= SEGMENT_HEAD * (0 < size - own < SEGMENT_HEAD)
        length = (own - len(COMMENT)).to_bytes(2, "big")
        yield COMMENT + length + draw.randbytes(own - SEGMENT_HEAD)
        size -= own


def _encoded(image: Image.Image, most: int) -> bytes:
    """An image as JPEG of at most `most` bytes, with the highest quality that permits it."""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= most:
            break
    return buffer.getvalue()
