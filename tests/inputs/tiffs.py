"""TIFF files written byte by byte, and their pixels by the TIFF 6.0 specification."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR, LAB = 0, 1, 2, 3, 4, 5, 6, 8
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
RAW, DEFLATE = 1, 8
UNSPECIFIED, MULTIPLIED_ALPHA, ALPHA = 0, 1, 2
ASCII, SHORT, LONG, UNDEFINED = 2, 3, 4, 7
CODES = {ASCII: "s", SHORT: "H", LONG: "I", UNDEFINED: "s"}
SIZES = {ASCII: 1, SHORT: 2, LONG: 4, UNDEFINED: 1}
TAG_SIZES = {"II": "<", "MM": ">"}
Entry = tuple[int, int, Any]


@dataclass(frozen=True)
class Tiff:
    """A TIFF file to write.

    Attributes:
        samples: [H, W, C], values of `bits` bits each.
        photometric: the PhotometricInterpretation.
        bits: of each sample.
        planar: 1 for interleaved channels, 2 for one plane per channel.
        order: the byte order, `II` (little endian) or `MM`.
        compression: 1 for none, 8 for deflate.
        sample_format: 1 unsigned, 2 signed, 3 floating point.
        extra: ExtraSamples.
        rows_per_strip: by default one strip holds all rows.
        colormap: UInt16[3, 2**bits].
        tags: further tags: number -> type and value.
        gap: number of zeros between the strips and the directory.
    """

    samples: npt.NDArray[Any]
    photometric: int = RGB
    bits: int = 8
    planar: int = 1
    order: Literal["II", "MM"] = "II"
    compression: int = RAW
    sample_format: int = UNSIGNED
    extra: Sequence[int] = ()
    rows_per_strip: int = 0
    colormap: npt.NDArray[np.uint16] | None = None
    tags: Mapping[int, tuple[int, Any]] = field(default_factory=dict)
    gap: int = 0

    def encode(self) -> bytes:
        """The file."""
        height, width, channels = self.samples.shape
        rows = self.rows_per_strip or height
        strips = [self._pack(strip) for strip in self._strips(rows)]
        if self.compression == DEFLATE:
            strips = [zlib.compress(strip) for strip in strips]
        offsets = [8 + sum(map(len, strips[:index])) for index in range(len(strips))]
        tags: dict[int, tuple[int, Any]] = {
            256: (LONG, [width]),
            257: (LONG, [height]),
            258: (SHORT, [self.bits] * channels),
            259: (SHORT, [self.compression]),
            262: (SHORT, [self.photometric]),
            273: (LONG, offsets),
            277: (SHORT, [channels]),
            278: (LONG, [rows]),
            279: (LONG, [len(strip) for strip in strips]),
            284: (SHORT, [self.planar]),
            339: (SHORT, [self.sample_format] * channels),
        }
        if self.colormap is not None:
            tags[320] = (SHORT, self.colormap.ravel().tolist())
        if self.extra:
            tags[338] = (SHORT, list(self.extra))
        tags.update(self.tags)
        return with_directory(b"".join([*strips, bytes(self.gap)]), tags, self.order)

    def _strips(self, rows: int) -> list[npt.NDArray[Any]]:
        channels = self.samples.shape[2]
        planes = [slice(i, i + 1) for i in range(channels)] if self.planar == 2 else [slice(None)]
        starts = range(0, self.samples.shape[0], rows)
        return [self.samples[start : start + rows, :, each] for each in planes for start in starts]

    def _pack(self, strip: npt.NDArray[Any]) -> bytes:
        order = TAG_SIZES[self.order]
        if self.bits % 8 == 0:
            kind = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}[self.sample_format]
            return strip.astype(f"{order}{kind}{self.bits // 8}").tobytes()
        # The most significant bit is first; each row starts with a new byte.
        values = strip.reshape(len(strip), -1, 1)
        bits = (values >> np.arange(self.bits)[::-1]) & 1
        return np.packbits(bits.reshape(len(strip), -1).astype(np.uint8), axis=1).tobytes()


def with_directory(
    strips: bytes,
    tags: Mapping[int, tuple[int, Any]],
    order: Literal["II", "MM"],
    following: int = 0,
) -> bytes:
    """A header, the strips from offset 8, and a directory with the tags."""
    sign = TAG_SIZES[order]
    start = 8 + len(strips) + len(strips) % 2
    values = start + 2 + 12 * len(tags) + 4
    entries, beyond = b"", b""
    for tag, (kind, value) in sorted(tags.items()):
        raw = (
            value
            if isinstance(value, bytes)
            else struct.pack(f"{sign}{len(value)}{CODES[kind]}", *value)
        )
        count = len(raw) // SIZES[kind]
        if len(raw) > 4:
            offset = values + len(beyond)
            beyond += raw + bytes(len(raw) % 2)
            raw = struct.pack(f"{sign}I", offset)
        entries += struct.pack(f"{sign}HHI", tag, kind, count) + raw.ljust(4, b"\0")
    head = order.encode() + struct.pack(f"{sign}HI", 42, start)
    directory = struct.pack(f"{sign}H", len(tags)) + entries + struct.pack(f"{sign}I", following)
    return (head + strips).ljust(start, b"\0") + directory + beyond


def to_8_bits(samples: npt.NDArray[Any], bits: int) -> npt.NDArray[np.float64]:
    """Samples of `bits` bits on the scale from 0 to 255, not rounded."""
    return samples.astype(np.float64) * 255 / (2**bits - 1)


def pixels_of(tiff: Tiff) -> npt.NDArray[np.float64]:
    """[H, W, 3] RGB from 0 to 255, not rounded, by the specification.

    Extra samples are ignored, except alpha that the colors have been multiplied by.
    """
    if tiff.photometric == PALETTE:
        assert tiff.colormap is not None
        return to_8_bits(tiff.colormap.T, 16)[tiff.samples[:, :, 0]]
    values = to_8_bits(tiff.samples, tiff.bits)
    if tiff.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        gray = values[:, :, :1]
        return np.repeat(255 - gray if tiff.photometric == WHITE_IS_ZERO else gray, 3, axis=2)
    if tiff.photometric == CMYK:
        ink = values[:, :, :4] / 255
        return 255 * (1 - ink[:, :, :3]) * (1 - ink[:, :, 3:])
    if tiff.photometric == YCBCR:
        y, cb, cr = (values[:, :, index] - (128 if index else 0) for index in range(3))
        # The coefficients of ITU-R BT.601, the default of the tag YCbCrCoefficients.
        red, blue = y + 1.402 * cr, y + 1.772 * cb
        green = (y - 0.299 * red - 0.114 * blue) / 0.587
        return np.stack([red, green, blue], axis=2).clip(0, 255)
    assert tiff.photometric == RGB
    if tuple(tiff.extra[:1]) == (MULTIPLIED_ALPHA,):
        return (255 * values[:, :, :3] / np.maximum(values[:, :, 3:4], 1e-9)).clip(0, 255)
    return values[:, :, :3]
