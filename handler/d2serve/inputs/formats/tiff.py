"""TIFF files: the tags of the first page that affect its pixels."""

import struct

import numpy as np

from d2serve.errors import RequestError, too_large, unprocessable
from d2serve.inputs.formats.exif import XMP, orientation_of
from d2serve.inputs.formats.image_parts import (
    WHITE_16_BIT,
    ImageParts,
    damaged,
)
from d2serve.inputs.formats.tiff_directory import (
    Directory,
    Layout,
    first_directory,
    following_directories,
    layout_of,
)

SIGNATURES = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")
MAX_FRAMES = 1000
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, CHANNELS, ROWS_PER_STRIP, STRIP_BYTES = 273, 277, 278, 279
ORIENTATION, PLANAR, EXTRA, SAMPLE_FORMAT, XMP_TAG = 274, 284, 338, 339, 700
PIXEL_TAGS = (
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, 266, STRIP_OFFSETS, CHANNELS, ROWS_PER_STRIP,
    STRIP_BYTES, PLANAR, 292, 293, 317, 320, 322, 323, 324, 325, EXTRA, SAMPLE_FORMAT, 347,
    *range(512, 522), *range(529, 533), 48129,
)  # fmt: skip
RAW, SEPARATE_PLANES = 1, 2
WHITE_IS_ZERO, BLACK_IS_ZERO, YCBCR = 0, 1, 6
COLORS = {0: "grey (white is 0)", 1: "grey", 2: "RGB", 3: "palette", 4: "transparency mask",
          5: "CMYK", 6: "YCbCr", 8: "CIE Lab", 9: "ICC Lab", 10: "ITU Lab",
          32803: "color filter array", 32844: "LogL", 32845: "LogLuv"}  # fmt: skip
NUMBERS = {1: "unsigned integers", 2: "signed integers", 3: "floating point", 4: "undefined",
           5: "complex integers", 6: "complex floating point"}  # fmt: skip
SIGNED = 2
MAX_WHITE_IS_ZERO_BITS = 8
# Old-style JPEG, Thunderscan, LogLuv, LZMA, Zstandard and WebP depend on the build of libtiff.
COMMON_COMPRESSIONS = (RAW, 2, 3, 4, 5, 7, 8, 32773, 32946)
ACCEPTED = (
    "send grey, palette, RGB or CMYK pixels with 8 or 16 bits per channel, or an array written by "
    "numpy.save"
)


def tiff_parts(body: bytes) -> ImageParts:
    """Keep the first page, with the tags that affect its pixels.

    Layouts that Pillow reads wrongly are rewritten as ones that it reads correctly: uncompressed
    planes are interleaved. Grey of 8 bits or more for which 0 is white is left to the caller.

    Raises:
        RequestError: 400 damaged, 413 more than MAX_FRAMES - 1 pages, 422 a kind of pixels that
            Pillow reads wrongly.
    """
    layout = layout_of(body)
    try:
        directory = Directory(body, layout, first_directory(body, layout))
    except (struct.error, OverflowError, ValueError) as error:
        raise damaged() from error
    frames = _count_pages(body, layout, directory)
    orientation = _orientation(directory)
    kind, is_inverted, white = _kind(directory, layout), False, WHITE_16_BIT
    directory.keep(PIXEL_TAGS)
    if not directory.is_complete():
        raise damaged()
    bits = set(directory.integers(BITS))
    if bits in ({8}, {12}, {16}) and directory.integers(PHOTOMETRIC)[:1] == (WHITE_IS_ZERO,):
        is_inverted = True
        directory.replace(PHOTOMETRIC, BLACK_IS_ZERO)
    if bits == {12}:
        white = (1 << 12) - 1
    _check_readable(directory, kind)
    planes = _interleaved(body, directory, kind) if _has_raw_planes(directory) else b""
    is_rare = directory.integer(COMPRESSION, RAW) not in COMMON_COMPRESSIONS
    is_rare |= _photometric(directory) == YCBCR and directory.integer(CHANNELS, 1) > 3
    rewritten = directory.in_file(planes)
    return ImageParts(rewritten, orientation, frames, kind, is_rare, white, is_inverted)


def _count_pages(body: bytes, layout: Layout, directory: Directory) -> int:
    pages = 1
    for _ in following_directories(body, layout, directory):
        pages += 1
        if pages == MAX_FRAMES:
            raise too_large(
                f"the image has at least {MAX_FRAMES} frames, the limit is {MAX_FRAMES - 1}",
                "send only the first frame",
            )
    return pages


def _orientation(directory: Directory) -> int | None:
    orientation = directory.integer(ORIENTATION)
    if orientation in range(1, 9):
        return orientation
    xmp = directory.content(XMP_TAG)
    return orientation_of({XMP: xmp}) if xmp and ORIENTATION not in directory.entries else None


def _kind(directory: Directory, layout: Layout) -> str:
    """The kind of pixels in words; empty without the tags that determine it."""
    if not (directory.integer(WIDTH) and directory.integer(HEIGHT)):
        return ""
    if BITS in directory.entries and not directory.integers(BITS):
        return ""
    channels, bits = directory.integer(CHANNELS, 1), directory.integers(BITS) or (1,)
    widths = "/".join(map(str, sorted(set(bits[:8]))))
    numbers = NUMBERS.get(directory.integer(SAMPLE_FORMAT, 1), "of an unknown format")
    colors = COLORS.get(_photometric(directory), "an unknown color space")
    version = f"{'big' if layout.order == '>' else 'little'}-endian"
    version += " BigTIFF" if layout.is_big else " TIFF"
    return (
        f"a {version} with channels: {channels}, each {widths} bits, {numbers}, {colors}, "
        f"compression {directory.integer(COMPRESSION, RAW)}"
    )


def _photometric(directory: Directory) -> int:
    return directory.integer(PHOTOMETRIC, WHITE_IS_ZERO)


def _check_readable(directory: Directory, kind: str) -> None:
    """Reject the kinds that Pillow accepts and reads wrongly."""
    is_raw = directory.integer(COMPRESSION, RAW) == RAW
    bits = directory.integers(BITS) or (1,)
    if (
        SIGNED in directory.integers(SAMPLE_FORMAT)
        or (is_raw and _photometric(directory) == YCBCR)
        or (bits[0] > MAX_WHITE_IS_ZERO_BITS and _photometric(directory) == WHITE_IS_ZERO)
    ):
        raise unsupported(kind or "a TIFF without its dimensions")


def unsupported(kind: str) -> RequestError:
    """422: no decoder reads this kind of pixels."""
    return unprocessable(f"the image is {kind}; these pixels are not supported", ACCEPTED)


def _has_raw_planes(directory: Directory) -> bool:
    is_separate = directory.integer(PLANAR, 1) == SEPARATE_PLANES
    return is_separate and directory.integer(COMPRESSION, RAW) == RAW


def _interleaved(body: bytes, directory: Directory, kind: str) -> bytes:
    """The planes of an uncompressed image as pixels, which the directory then refers to.

    They have to be appended to the file.

    Raises:
        RequestError: 400 truncated, 422 the samples are not whole bytes, or in tiles.
    """
    channels = directory.integer(CHANNELS, 1)
    directory.replace(PLANAR, 1)
    if channels == 1:
        return b""
    height, width = directory.integer(HEIGHT), directory.integer(WIDTH)
    bits = set(directory.integers(BITS))
    offsets, sizes = directory.integers(STRIP_OFFSETS), directory.integers(STRIP_BYTES)
    if bits not in ({8}, {16}) or not offsets or len(offsets) != len(sizes):
        raise unsupported(f"{kind or 'a TIFF'}, in separate planes")
    sample_bytes = bits.pop() // 8
    size = channels * height * width * sample_bytes
    # Strips that overlap could be larger than the file together.
    if not 0 < size == sum(sizes) <= len(body):
        raise damaged()
    strips = (body[start : start + size] for start, size in zip(offsets, sizes, strict=True))
    samples = np.frombuffer(b"".join(strips), np.uint8)
    if samples.size != size:
        raise damaged()
    planes = samples.reshape(channels, height, width, sample_bytes)
    pixels = planes.transpose(1, 2, 0, 3).tobytes()
    directory.replace(STRIP_OFFSETS, len(body))
    directory.replace(STRIP_BYTES, len(pixels))
    directory.replace(ROWS_PER_STRIP, height)
    return pixels
