"""Image files with mutated metadata blocks and TIFF tags."""

import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.bad_requests import png_chunk
from tests.fuzz.mutations import MUTATIONS
from tests.inputs import tiffs
from tests.inputs.metadata_blocks import (
    BLOCKS,
    PLAIN,
    RGB,
    TURNED,
    XMP_HEADER,
    exif_of,
    gif_with,
    jpeg_with,
    png_with,
    riff_chunk,
    segment,
    webp_with,
)
from tests.inputs.tiffs import ASCII, LONG, SHORT, UNDEFINED, Tiff

MAX_BLOCKS = 3
SUBSAMPLING = 530
# Pixels of a larger image than claimed are read from here instead of from the directory.
GAP = 900_000
MAX_BLOCK_BYTES = 60_000
XMP = b'<x:xmpmeta tiff:Orientation="6">'
EXIF_HEADER = b"Exif\0\0"
RAW_PROFILE = b"Raw profile type exif\0"
CONTENTS = [
    *BLOCKS.values(), TURNED, XMP, EXIF_HEADER + TURNED, XMP_HEADER + XMP, b"Adobe\0\x64\0\0\0\0\1",
    b"JFIF\0\1\1\0\0\1\0\1\0\0", b"ICC_PROFILE\0\1\1", b"Photoshop 3.0\x008BIM\x03\xed\0\0",
    b"MPF\0II*\0\x08\0\0\0", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP,
    RAW_PROFILE + f"\nexif\n{len(TURNED)}\n{TURNED.hex()}".encode(), b"NETSCAPE2.0",
]  # fmt: skip


@dataclass(frozen=True)
class MetadataFile:
    """An image with metadata blocks, and the same image without them."""

    file_format: str
    body: bytes

    @property
    def plain(self) -> bytes:
        """The image without the blocks."""
        return PLAIN[self.file_format]


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """The content of a metadata block."""
    content: bytes = draw(st.one_of(st.sampled_from(CONTENTS), st.binary(max_size=64), ORIENTED))
    for mutate in draw(st.lists(MUTATIONS, max_size=2)):
        content = mutate(content)
    return content[:MAX_BLOCK_BYTES]


ORIENTED = st.integers(0, 9).map(lambda value: EXIF_HEADER + exif_of(0x0112, 3, 1, value))


def _jpegs(draw: st.DrawFn) -> bytes:
    markers = st.sampled_from([*range(0xE1, 0xEE), 0xEF, 0xFE])
    prefixes = st.sampled_from([b"", EXIF_HEADER, XMP_HEADER, b"ICC_PROFILE\0", b"MPF\0"])
    blocks = st.builds(
        lambda marker, prefix, content: segment(marker, prefix + content),
        markers, prefixes, contents(),
    )  # fmt: skip
    return jpeg_with(*draw(st.lists(blocks, max_size=MAX_BLOCKS)))


def _pngs(draw: st.DrawFn) -> bytes:
    kinds = ["eXIf", "iCCP", "zTXt", "iTXt", "tEXt", "gAMA", "cHRM", "sRGB", "pHYs", "tRNS", "bKGD",
             "sBIT", "tIME", "acTL", "fcTL", "fdAT", "prVt", "a_1b"]  # fmt: skip
    # A file may have one EXIF chunk; Pillow takes the first or the last, depending on its place.
    blocks: list[tuple[str, bytes]] = draw(
        st.lists(st.tuples(st.sampled_from(kinds), contents()), max_size=MAX_BLOCKS,
                 unique_by=lambda block: block[0])
    )  # fmt: skip
    chunks = [png_chunk(kind.encode(), content) for kind, content in blocks]
    chunks = [chunk[:-4] + b"abcd" if draw(st.booleans()) else chunk for chunk in chunks]
    return png_with(*chunks, after_pixels=draw(st.booleans()))


def _webps(draw: st.DrawFn) -> bytes:
    kinds = st.sampled_from([b"EXIF", b"XMP ", b"ICCP", b"abcd", b"\0\0\0\0"])
    chunks = st.lists(st.builds(riff_chunk, kinds, contents()), max_size=MAX_BLOCKS)
    flags = draw(st.sampled_from([0, 0x04, 0x08, 0x0C, 0x20, 0x2C]))
    return webp_with(flags, *draw(chunks), before=b"".join(draw(chunks)))


def _gifs(draw: st.DrawFn) -> bytes:
    def block(label: int, content: bytes) -> bytes:
        parts = [content[start : start + 255] for start in range(0, len(content), 255)]
        lengths_and_parts = (bytes([len(part)]) + part for part in parts)
        return bytes([0x21, label]) + b"".join(lengths_and_parts) + b"\0"

    labels = st.integers(0, 255).filter(lambda label: label != 0xF9)
    return gif_with(*draw(st.lists(st.builds(block, labels, contents()), max_size=MAX_BLOCKS)))


def _values(kind: int) -> st.SearchStrategy[Any]:
    if kind in (ASCII, UNDEFINED):
        return contents()
    most = 2**16 if kind == SHORT else 2**32
    values = st.one_of(st.integers(0, 9), st.integers(0, most - 1))
    return st.lists(values, max_size=4)


TYPED_VALUES = st.sampled_from([ASCII, UNDEFINED, SHORT, LONG]).flatmap(
    lambda kind: st.tuples(st.just(kind), _values(kind))
)
# Dates, resolution, software, IPTC, Photoshop, EXIF, ICC, GPS, geodata, sub-pages and private tags.
METADATA_TAGS = [254, 255, 269, 270, 271, 274, 280, 281, 282, 283, 296, 297, 305, 306, 315, 316,
                 330, 336, 700, 33432, 33550, 33723, 34377, 34665, 34675, 34735, 34853, 37500,
                 40965, 42112, 50706, 65000]  # fmt: skip
# Tags that can determine the pixels.
PIXEL_TAGS = [256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323,
              324, 325, 338, 339, 347, 512, 513, 514, 529, 530, 531, 532]  # fmt: skip


def _tiffs(draw: st.DrawFn) -> bytes:
    tags = st.dictionaries(st.sampled_from(METADATA_TAGS), TYPED_VALUES, max_size=MAX_BLOCKS)
    return Tiff(RGB, order=draw(st.sampled_from(["II", "MM"])), tags=draw(tags)).encode()


WRITERS: dict[str, Callable[[st.DrawFn], bytes]] = {
    "JPEG": _jpegs, "PNG": _pngs, "WEBP": _webps, "GIF": _gifs, "TIFF": _tiffs,
}  # fmt: skip


@st.composite
def metadata_files(draw: st.DrawFn) -> MetadataFile:
    """An image of any format with up to MAX_BLOCKS metadata blocks."""
    file_format = draw(st.sampled_from(sorted(WRITERS)))
    return MetadataFile(file_format, WRITERS[file_format](draw))


VARIANTS = [
    (photometric, bits, extra, *storage)
    for photometric, bits, extra in [
        *itertools.product((0, 1), (1, 2, 4, 8, 12, 16), [()]),
        *itertools.product([2], (8, 16), [(), (0,), (2,), (0, 0)]),
        *itertools.product([5], (8, 16), [()]),
        (6, 8, ()),
    ]
    for storage in itertools.product((1, 2), ("II", "MM"), (tiffs.RAW, tiffs.DEFLATE))
]
CHANNELS = {0: 1, 1: 1, 2: 3, 5: 4, 6: 3}


def tiff_of(variant: tuple[Any, ...], tags: dict[int, tuple[int, Any]]) -> Tiff:
    """A TIFF of one of the VARIANTS with changed or further tags."""
    photometric, bits, extra, planar, order, compression = variant
    generator = np.random.default_rng(bits)
    shape = (9, 12, CHANNELS[photometric] + len(extra))
    samples = generator.integers(0, 2**bits - 1, shape, endpoint=True)
    if photometric == tiffs.YCBCR:
        tags = {SUBSAMPLING: (SHORT, [1, 1]), **tags}
    return Tiff(
        samples, photometric, bits, planar, order, compression, extra=extra, rows_per_strip=4,
        tags=tags, gap=GAP,
    )  # fmt: skip


@st.composite
def tagged_tiffs(draw: st.DrawFn, tags: list[int]) -> Tiff:
    """A TIFF of any variant, with up to MAX_BLOCKS of these tags changed or added."""
    changes = draw(st.dictionaries(st.sampled_from(tags), TYPED_VALUES, max_size=MAX_BLOCKS))
    return tiff_of(draw(st.sampled_from(VARIANTS)), changes)


def with_entry_bytes(body: bytes, changes: dict[int, int]) -> bytes:
    """The file with some bytes of its first directory replaced, by position."""
    order = "<" if body.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", body, 4)
    (count,) = struct.unpack_from(f"{order}H", body, start)
    changed = bytearray(body)
    for position, value in changes.items():
        changed[start + position % (2 + 12 * count + 4)] = value
    return bytes(changed)
