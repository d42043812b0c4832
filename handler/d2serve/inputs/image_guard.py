"""Bounds on the work that image files can cause in decoders."""

import io
from collections.abc import Callable

from d2serve.inputs.formats import bmp, gif, jpeg, png, tiff, webp
from d2serve.inputs.formats.image_parts import ImageParts, too_many_parts

MAX_READS = 300_000
# The first bytes of each format.
FORMATS: tuple[tuple[bytes, Callable[[bytes], ImageParts]], ...] = (
    (jpeg.START, jpeg.jpeg_parts),
    (png.SIGNATURE, png.png_parts),
    (webp.RIFF, webp.webp_parts),
    (gif.SIGNATURE, gif.gif_parts),
    (bmp.SIGNATURE, bmp.bmp_parts),
    *((signature, tiff.tiff_parts) for signature in tiff.SIGNATURES),
)


def image_parts(body: bytes) -> ImageParts:
    """Separate the pixels of an image file from its metadata.

    The work is linear in the size of the file. Unknown formats are returned unchanged.

    Raises:
        RequestError: 400 damaged or too many parts, 413 too many pages of a TIFF, 422 pixels that
            decoders read wrongly.
    """
    for signature, parts_of in FORMATS:
        if body.startswith(signature):
            return parts_of(body)
    return ImageParts(body)


class ReadLimitedFile(io.BytesIO):
    """Bytes that can be read from MAX_READS times."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._remaining = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like any file; raises RequestError (400) when the reads are used up."""
        self._remaining -= 1
        if self._remaining < 0:
            raise too_many_parts("data blocks", MAX_READS)
        return super().read(size)
