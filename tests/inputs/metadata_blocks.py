"""Metadata blocks, most of them damaged, in images of all formats that have any."""

import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from tests.bad_requests import png_chunk, zeros
from tests.bodies import image_bytes, noise
from tests.inputs.tiffs import ASCII, LONG, SHORT, UNDEFINED, Tiff

RGB = noise(12, 17, 3)
JPEG = image_bytes(RGB, "JPEG", quality=95, dpi=(72, 72))
PNG = image_bytes(RGB, "PNG")
WEBP = image_bytes(RGB, "WEBP", lossless=True)
GIF = image_bytes(Image.fromarray(RGB).quantize(256), "GIF")
XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
PHOTOSHOP = b"Photoshop 3.0\0"
GARBAGE = b"GARBAGEGARBAGE"


def exif_of(tag: int, kind: int, count: int, value: int, following: int = 0) -> bytes:
    """EXIF data with one tag."""
    entry = struct.pack("<HHHIII", 1, tag, kind, count, value, following)
    return b"II*\0\x08\0\0\0" + entry


# Orientation 6, rotated to the right.
TURNED = exif_of(0x0112, 3, 1, 6)
BLOCKS = {
    "garbage": GARBAGE,
    "empty": b"",
    "header-only": b"II*\0",
    "without-entries": b"II*\0\x08\0\0\0",
    "offset-out-of-file": b"MM\0*\xff\xff\xff\xff",
    "other-version": b"II\xff\0\x08\0\0\0\0\0",
    "many-entries": b"II*\0\x08\0\0\0\xff\xff",
    "cycle": exif_of(0x8769, 4, 1, 8, following=8),
    "unknown-type": exif_of(0x0112, 99, 1, 6),
    "text-orientation": exif_of(0x0112, 2, 2, 0x36),
    "orientation-99": exif_of(0x0112, 3, 1, 99),
    "values-out-of-file": exif_of(0x0112, 3, 4_000_000_000, 6),
}


def segment(marker: int, content: bytes) -> bytes:
    """A JPEG segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg_with(*segments: bytes) -> bytes:
    """Segments after the first."""
    start = 4 + int.from_bytes(JPEG[4:6], "big")
    return JPEG[:start] + b"".join(segments) + JPEG[start:]


def png_with(*chunks: bytes, after_pixels: bool = False) -> bytes:
    """Chunks before or after the pixels."""
    at = len(PNG) - 12 if after_pixels else 33
    return PNG[:at] + b"".join(chunks) + PNG[at:]


def riff_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a WebP file."""
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def webp_with(flags: int, *after: bytes, before: bytes = b"") -> bytes:
    """An extended WebP with chunks before and after the pixels."""
    size = struct.pack("<I", 16)[:3] + struct.pack("<I", 11)[:3]
    chunks = riff_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size)
    chunks += before + WEBP[12:] + b"".join(after)
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def gif_with(*blocks: bytes) -> bytes:
    """Blocks after the color table."""
    head = 13 + 3 * 256
    return GIF[:head] + b"".join(blocks) + GIF[head:]


def tiff_with(tag: int, kind: int, value: Any) -> bytes:
    """A TIFF with one further tag."""
    return Tiff(RGB, tags={tag: (kind, value)}).encode()


def _jpegs() -> Iterable[tuple[str, bytes]]:
    for name, block in BLOCKS.items():
        yield f"exif-{name}", jpeg_with(segment(0xE1, b"Exif\0\0" + block))
    contents: Mapping[str, tuple[int, bytes]] = {
        "xmp": (0xE1, XMP_HEADER + b"<x:xmpmeta\xff"),
        "xmp-orientation-x": (0xE1, XMP_HEADER + b'tiff:Orientation="x"'),
        "extended-xmp": (0xE1, b"http://ns.adobe.com/xmp/extension/\0" + GARBAGE),
        "icc": (0xE2, b"ICC_PROFILE\0"),
        "icc-garbage": (0xE2, b"ICC_PROFILE\0\x01\x01" + GARBAGE),
        "flashpix": (0xE2, b"FPXR\0"),
        "multi-picture": (0xE2, b"MPF\0" + GARBAGE),
        "multi-picture-header": (0xE2, b"MPF\0II*\0\x08\0\0\0"),
        "photoshop": (0xED, PHOTOSHOP + b"8BIM"),
        "photoshop-long": (0xED, PHOTOSHOP + b"8BIM\x03\xed\0\0\xff\xff\xff\xff"),
        "photoshop-resolution": (0xED, PHOTOSHOP + b"8BIM\x03\xed\0\0\0\0\0\2\0\0"),
        "jfif-short": (0xE0, b"JFIF\0"),
        "jfxx": (0xE0, b"JFXX\0\x13" + GARBAGE),
        "adobe-short": (0xEE, b"Adobe"),
        "comment": (0xFE, b"\xff\xfe\xff\xd9"),
        "hidden-end": (0xE5, b"\xff\xd9" * 20),
        "empty": (0xEF, b""),
    }
    for name, (marker, content) in contents.items():
        yield name, jpeg_with(segment(marker, content))
    yield "length-0", jpeg_with(b"\xff\xe5\0\0")
    yield "length-1", jpeg_with(b"\xff\xe1\0\1")
    yield "exif-twice", jpeg_with(*[segment(0xE1, b"Exif\0\0" + GARBAGE)] * 2)


def _pngs() -> Iterable[tuple[str, bytes]]:
    contents: dict[str, tuple[bytes, bytes]] = {
        "icc-method": (b"iCCP", b"a\0\x07" + zeros(9)),
        "icc-garbage": (b"iCCP", b"a\0\0" + GARBAGE),
        "icc-empty": (b"iCCP", b""),
        "icc-bomb": (b"iCCP", b"a\0\0" + zeros(100_000_000)),
        "ztxt-method": (b"zTXt", b"a\0\x07" + zeros(9)),
        "ztxt-bomb": (b"zTXt", b"a\0\0" + zeros(100_000_000)),
        "ztxt-garbage": (b"zTXt", GARBAGE),
        "itxt-short": (b"iTXt", b"a\0\1"),
        "itxt-bomb": (b"iTXt", b"a\0\1\0\0\0" + zeros(100_000_000)),
        "itxt-latin": (b"iTXt", b"a\0\0\0\xff\0\xff\0\xff"),
        "text-empty": (b"tEXt", b""),
        "raw-exif": (b"tEXt", b"Raw profile type exif\0\nexif\n4\nzz"),
        "raw-exif-odd": (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\n\n\n123")),
        "raw-exif-bomb": (b"zTXt", b"Raw profile type exif\0\0" + zeros(100_000_000)),
        "exif-text": (b"tEXt", b"exif\0" + GARBAGE),
        "xmp": (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta\xff"),
        "gamma-short": (b"gAMA", b"\0"),
        "chroma-short": (b"cHRM", b"\0\1\2"),
        "srgb-empty": (b"sRGB", b""),
        "resolution-short": (b"pHYs", b"\0\0"),
        "transparency-short": (b"tRNS", b"\0"),
        "transparency-long": (b"tRNS", b"\0" * 300),
        "animation-short": (b"acTL", b"\0"),
        "animation-endless": (b"acTL", b"\xff" * 8),
        "frame-short": (b"fcTL", b"\0"),
        "frame-outside": (b"fcTL", struct.pack(">IIIII", 0, 99, 99, 99, 99) + bytes(6)),
        "frame-data": (b"fdAT", b""),
        "background": (b"bKGD", b""),
        "time": (b"tIME", GARBAGE),
        "private": (b"prVt", GARBAGE),
        "digits": (b"a1_b", GARBAGE),
    }
    contents |= {f"exif-{name}": (b"eXIf", block) for name, block in BLOCKS.items()}
    for name, (kind, content) in contents.items():
        chunk = png_chunk(kind, content)
        yield name, png_with(chunk)
        yield f"{name}-after-pixels", png_with(chunk, after_pixels=True)
        yield f"{name}-checksum", png_with(chunk[:-4] + b"abcd")
    yield "text-out-of-file", png_with(b"\0\xff\xff\xfftEXta\0b", after_pixels=True)[:-12]


def _webps() -> Iterable[tuple[str, bytes]]:
    for name, block in BLOCKS.items():
        yield f"exif-{name}", webp_with(0x08, riff_chunk(b"EXIF", block))
    yield "xmp", webp_with(0x04, riff_chunk(b"XMP ", b"tiff:Orientation=\xff"))
    yield "icc", webp_with(0x20, before=riff_chunk(b"ICCP", GARBAGE))
    yield "icc-after", webp_with(0x20, riff_chunk(b"ICCP", GARBAGE))
    yield "icc-missing", webp_with(0x20)
    yield "exif-missing", webp_with(0x0C)
    yield "unknown", webp_with(0, riff_chunk(b"abcd", GARBAGE), before=riff_chunk(b"zzzz", b"1"))
    yield "exif-out-of-file", webp_with(0x08, b"EXIF\xff\xff\0\0Exif")


def _gifs() -> Iterable[tuple[str, bytes]]:
    blocks = {
        "comment": b"\x21\xfe\x03abc\0",
        "comment-empty": b"\x21\xfe\0",
        "loop-short": b"\x21\xff\x0bNETSCAPE2.0\x01\x01\0",
        "loop-empty": b"\x21\xff\0",
        "xmp": b"\x21\xff\x0bXMP DataXMP<x:xmpmeta\xff" + bytes(range(255, -1, -1)) + b"\0",
        "text": b"\x21\x01\x0c" + bytes(12) + b"\x03abc\0",
        "unknown": b"\x21\x77\x02ab\0",
        "icc": b"\x21\xff\x0bICCRGBG1012\x02ab\0",
    }
    for name, block in blocks.items():
        yield name, gif_with(block)
        yield f"{name}-many", gif_with(*[block] * 3)


def _tiffs() -> Iterable[tuple[str, bytes]]:
    tags: dict[str, tuple[int, int, Any]] = {
        "exif-out-of-file": (34665, LONG, [4_000_000_000]),
        "exif-text": (34665, ASCII, b"II*\0"),
        "exif-in-pixels": (34665, LONG, [9]),
        "exif-in-header": (34665, LONG, [0]),
        "gps-in-pixels": (34853, LONG, [9]),
        "interoperability": (40965, LONG, [9]),
        "icc": (34675, UNDEFINED, GARBAGE),
        "icc-numbers": (34675, LONG, [1, 2, 3]),
        "xmp": (700, 1 * UNDEFINED, b"tiff:Orientation=\xff"),
        "xmp-number": (700, LONG, [1]),
        "iptc": (33723, UNDEFINED, GARBAGE),
        "photoshop": (34377, UNDEFINED, b"8BIM" + GARBAGE),
        "resolution-text": (282, ASCII, b"72\0"),
        "resolution-pair": (282, LONG, [7, 2]),
        "resolution-unit": (296, SHORT, [3]),
        "resolution-unit-text": (296, ASCII, b"cm\0"),
        "date": (306, ASCII, b"\xff" * 40),
        "description": (270, SHORT, [1] * 40),
        "orientation-text": (274, ASCII, b"6\0"),
        "orientation-99": (274, SHORT, [99]),
        "orientation-pair": (274, LONG, [99, 6]),
        "page": (297, ASCII, b"1/2\0"),
        "geo": (34735, SHORT, [1, 1, 0, 9]),
        "private": (65000, UNDEFINED, GARBAGE),
        "sub-pages": (330, LONG, [8, 9, 10]),
    }
    for name, (tag, kind, value) in tags.items():
        yield name, tiff_with(tag, kind, value)
    body = bytearray(tiff_with(65000, SHORT, [1]))
    at = body.index(struct.pack("<HH", 65000, SHORT))
    yield "unknown-type", bytes(body[: at + 2]) + b"\x63\0" + bytes(body[at + 4 :])
    yield "values-out-of-file", bytes(body[: at + 4]) + b"\xff" * 8 + bytes(body[at + 12 :])


# Format -> name -> file; all have the pixels of the file without metadata.
FILES: dict[str, dict[str, bytes]] = {
    "JPEG": dict(_jpegs()),
    "PNG": dict(_pngs()),
    "WEBP": dict(_webps()),
    "GIF": dict(_gifs()),
    "TIFF": dict(_tiffs()),
}
PLAIN = {"JPEG": JPEG, "PNG": PNG, "WEBP": WEBP, "GIF": GIF, "TIFF": Tiff(RGB).encode()}


def upright(pixels: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """The pixels of an image with the orientation of TURNED."""
    return np.rot90(pixels, -1)
