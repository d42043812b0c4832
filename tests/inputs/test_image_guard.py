"""Hostile image files."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from d2serve.errors import RequestError
from d2serve.inputs.formats.image_parts import MAX_PARTS, MAX_SUB_BLOCKS
from d2serve.inputs.formats.jpeg import MAX_SCANS
from d2serve.inputs.image_guard import MAX_READS, ReadLimitedFile, image_parts
from d2serve.inputs.images import decode_image
from tests.bad_requests import png_chunk, png_of, zeros
from tests.bodies import image_bytes, noise

MAX_PIXELS = 50_000_000
GRAY = noise(64, 64)
JPEG = image_bytes(GRAY, "JPEG")
PROGRESSIVE = image_bytes(GRAY, "JPEG", progressive=True)
WEBP = image_bytes(GRAY, "WEBP", lossless=True)
GIF = image_bytes(Image.fromarray(GRAY).convert("P"), "GIF")
PIXELS = png_chunk(b"IDAT", zeros(64 * 65))
COMMENT = b"\xff\xfe\x00\x02"
END = b"\xff\xd9"


def last_scan(progressive: bytes) -> bytes:
    """From the last start-of-scan marker to the end of the image."""
    return progressive[progressive.rindex(b"\xff\xda") : progressive.rindex(END)]


def with_more_scans(count: int) -> bytes:
    present = PROGRESSIVE.count(b"\xff\xda")
    repeated = last_scan(PROGRESSIVE) * (count - present)
    return PROGRESSIVE[: PROGRESSIVE.rindex(END)] + repeated + END


def with_more_segments(count: int) -> bytes:
    return JPEG[:2] + COMMENT * count + JPEG[2:]


def gif_with_comments(count: int) -> bytes:
    head = 13 + 3 * 256
    return GIF[:head] + b"\x21\xfe\x00" * count + GIF[head:]


def webp_with(chunk: bytes, count: int) -> bytes:
    added = WEBP[12:] + chunk * count
    return b"RIFF" + struct.pack("<I", len(added) + 4) + b"WEBP" + added


def png_with(kind: bytes, count: int, content: bytes = b"a\0b") -> bytes:
    return png_of(64, 64, *[png_chunk(kind, content)] * count, PIXELS)


MANY_PARTS = {
    "jpeg-scans": with_more_scans(MAX_SCANS + 1),
    "jpeg-comments": with_more_segments(MAX_PARTS),
    "png-texts": png_with(b"tEXt", MAX_PARTS),
    "png-texts-after-the-pixels": png_of(64, 64, PIXELS, *[png_chunk(b"tEXt", b"")] * MAX_PARTS),
    "gif-comments": gif_with_comments(MAX_PARTS + 1),
    "gif-sub-blocks": GIF[:-1] + b"\x21\xfe" + b"\1 " * (MAX_SUB_BLOCKS + 1) + b"\0;",
    "webp-chunks": webp_with(b"TEXT" + bytes(4), MAX_PARTS),
}


@pytest.mark.parametrize("name", MANY_PARTS)
def test_too_many_segments_or_chunks_is_a_400(name: str) -> None:
    with pytest.raises(RequestError, match="has more than") as raised:
        decode_image(MANY_PARTS[name], MAX_PIXELS)
    assert (raised.value.status, raised.value.code) == (400, "bad_request")


# Extended XMP, as in images with depth: 323 segments of the largest size.
EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
LARGE_SEGMENT = b"\xff\xe1\xff\xff" + EXTENDED_XMP.ljust(65_533, b"a")
PROFILE = png_chunk(b"iCCP", b"a\0\0" + zeros(100_000_000))
FEW_PARTS = {
    "jpeg": JPEG,
    "jpeg-scans": with_more_scans(MAX_SCANS),
    "jpeg-comments": with_more_segments(50_000),
    "jpeg-extended-xmp": JPEG[:2] + LARGE_SEGMENT * 323 + JPEG[2:],
    "jpeg-with-an-appended-video": JPEG + b"\xff\xda\x00\x02" * 100_000,
    "png": png_of(64, 64, PIXELS),
    "png-deflated-texts": png_with(b"zTXt", 100, b"a\0\0" + zeros(1_000)),
    "png-profiles": png_of(64, 64, *[PROFILE] * 100, PIXELS),
    "png-profiles-in-texts": png_with(
        b"zTXt", 1_000, b"Raw profile type exif\0\0" + zeros(1_000_000)
    ),
    "png-texts-after-the-pixels": png_of(64, 64, PIXELS, *[png_chunk(b"zTXt", b"a")] * 5_000),
    "png-large-texts": png_with(b"tEXt", 100, b"a\0" + b"b" * 1_000_000),
    "png-chunks": png_with(b"tEXt", 50_000),
    "gif-comments": gif_with_comments(50_000),
    "webp-chunks": webp_with(b"TEXT" + bytes(4), 50_000),
}


@pytest.mark.parametrize("name", FEW_PARTS)
def test_usual_number_of_segments_or_chunks_is_decoded(name: str) -> None:
    assert decode_image(FEW_PARTS[name], MAX_PIXELS).shape == (64, 64, 3)


def test_large_icc_profile_is_decoded() -> None:
    profile = bytes(250 * 65_000)
    body = image_bytes(GRAY, "JPEG", icc_profile=profile)
    assert decode_image(body, MAX_PIXELS).shape == (64, 64, 3)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0",
        b"\xff\xd8\xff\xe0\xff\xff",
        b"\xff\xd8" + b"\xff" * 1_000,
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n\xff\xff\xff\xff",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
    ],
)
def test_truncated_file_passes_the_guard(body: bytes) -> None:
    assert image_parts(body).body == body


def test_standalone_marker_does_not_hide_scans() -> None:
    hidden = b"\xff\x01" + last_scan(PROGRESSIVE) * MAX_SCANS
    with pytest.raises(RequestError, match="has more than"):
        image_parts(PROGRESSIVE[: PROGRESSIVE.rindex(END)] + hidden + END)


def test_number_of_reads_is_limited() -> None:
    file = ReadLimitedFile(bytes(MAX_READS))
    for _ in range(MAX_READS):
        file.read(1)
    with pytest.raises(RequestError, match="has more than"):
        file.read(1)


def tiff_of_pages(count: int) -> bytes:
    """A small TIFF with `count` directories that refer to the same page."""
    page = image_bytes(noise(8, 8), "TIFF")
    (first,) = struct.unpack("<I", page[4:8])
    (entries,) = struct.unpack("<H", page[first : first + 2])
    end = first + 2 + 12 * entries
    directory, size = page[first:end], end - first + 4
    starts = [len(page) + index * size for index in range(count - 1)]
    following = [*starts, 0]
    head = page[:end] + struct.pack("<I", following[0]) + page[end + 4 :]
    return head + b"".join(directory + struct.pack("<I", after) for after in following[1:])


def endless_tiff() -> bytes:
    """A TIFF whose directory refers to itself as the next one."""
    page = image_bytes(noise(8, 8), "TIFF")
    (first,) = struct.unpack("<I", page[4:8])
    (entries,) = struct.unpack("<H", page[first : first + 2])
    end = first + 2 + 12 * entries
    return page[:end] + struct.pack("<I", first) + page[end + 4 :]


def animation(file_format: str, frames: int) -> bytes:
    images = [Image.fromarray(noise(8, 8, seed=seed)) for seed in range(frames)]
    return image_bytes(
        images[0], file_format, save_all=True, append_images=images[1:], lossless=True
    )


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_all_frames_count_towards_the_pixel_limit(file_format: str) -> None:
    body = animation(file_format, frames=3)
    assert decode_image(body, 3 * 64).shape == (8, 8, 3)
    with pytest.raises(RequestError, match="8x8 in 3 frames") as raised:
        decode_image(body, 3 * 64 - 1)
    assert raised.value.status == 413


def test_first_frame_is_decoded_after_counting() -> None:
    for file_format in ("GIF", "PNG", "WEBP", "TIFF"):
        first = decode_image(animation(file_format, frames=3), MAX_PIXELS)
        np.testing.assert_array_equal(first[:, :, 0], noise(8, 8, seed=0))


def test_appended_images_of_phones_do_not_count() -> None:
    images = [Image.fromarray(noise(8, 8, 3, seed=seed)) for seed in range(3)]
    file = io.BytesIO()
    images[0].save(file, "MPO", save_all=True, append_images=images[1:])
    assert decode_image(file.getvalue(), 64).shape == (8, 8, 3)


@pytest.mark.parametrize(("pages", "status"), [(999, None), (1_000, 413), (20_000, 413)])
def test_number_of_tiff_pages_is_limited(pages: int, status: int | None) -> None:
    body = tiff_of_pages(pages)
    if status is None:
        assert decode_image(body, MAX_PIXELS).shape == (8, 8, 3)
        return
    with pytest.raises(RequestError) as raised:
        decode_image(body, MAX_PIXELS)
    assert raised.value.status == status


def test_cyclic_tiff_directory_terminates() -> None:
    assert decode_image(endless_tiff(), MAX_PIXELS).shape == (8, 8, 3)


def test_png_data_after_the_last_row_is_not_inflated() -> None:
    body = png_of(64, 64, png_chunk(b"IDAT", zeros(200_000_000)))
    assert decode_image(body, MAX_PIXELS).shape == (64, 64, 3)


def exif_of_overlapping_values(size: int) -> bytes:
    """EXIF data with 65,535 tags that each claim `size` bytes."""
    entry = struct.pack("<HHII", 65_000, 7, size, 8)
    directory = struct.pack("<H", 65_535) + entry * 65_535 + bytes(4)
    return (b"II*\0\x08\0\0\0" + directory).ljust(size + 8, b"\0")


def test_overlapping_values_in_metadata_are_not_copied() -> None:
    """65,535 copies of 20 MB would keep this test busy for minutes."""
    body = png_of(64, 64, png_chunk(b"eXIf", exif_of_overlapping_values(20_000_000)), PIXELS)
    assert decode_image(body, MAX_PIXELS).shape == (64, 64, 3)
