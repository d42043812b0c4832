"""Mutated metadata and TIFF tags: no misread pixels beside Pillow, and only errors of requests."""

import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from PIL import Image

from d2serve.errors import RequestError
from d2serve.inputs.images import decode_image
from tests.fuzz.conftest import FILE_EXAMPLES
from tests.fuzz.corpus import Seed
from tests.fuzz.image_files import (
    METADATA_TAGS,
    PIXEL_TAGS,
    MetadataFile,
    metadata_files,
    tagged_tiffs,
    tiff_of,
    with_entry_bytes,
)
from tests.fuzz.mutations import mutated_seeds
from tests.inputs.tiffs import WHITE_IS_ZERO, YCBCR, Tiff, pixels_of

MAX_PIXELS = 100_000
STATUSES = {400, 413, 415, 422}
ROUNDING = 2
ORIENTATION = 0x0112
BITS, COMPRESSION, PHOTOMETRIC, PLANAR = 258, 259, 262, 284
TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Pixels = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _as_in_production() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode(body: bytes) -> Pixels | int:
    """The pixels, or the status of the error."""
    status = 0
    try:
        return decode_image(body, MAX_PIXELS)
    except RequestError as error:
        status = error.status
    assert status in STATUSES
    return status


def by_pillow(body: bytes) -> Pixels | None:
    """The pixels by Pillow alone; None if it rejects the file."""
    try:
        with Image.open(io.BytesIO(body)) as opened:
            image: Image.Image = opened
            if image.width * image.height > MAX_PIXELS or is_misread_by_pillow(image):
                return None
            image.load()
            orientation = orientation_of(image)
            if image.mode in ("I", "F"):
                return None
            if image.mode.startswith("I;16"):
                gray = (np.asarray(image) / 257).round().astype(np.uint8)
                image = Image.fromarray(gray)
            image.info.pop("transparency", None)
            upright = image.convert("RGB")
            if orientation in TRANSPOSED:
                upright = upright.transpose(TRANSPOSED[orientation])
            return np.asarray(upright)
    except Exception:  # noqa: BLE001 damaged files make Pillow raise almost anything
        return None


def is_misread_by_pillow(image: Image.Image) -> bool:
    """Return whether Pillow's pixels of a TIFF are not those of the specification.

    See test_tiff.py, which compares these with the specification.
    """
    tags = getattr(image, "tag_v2", {})
    is_raw = tags.get(COMPRESSION, 1) == 1
    photometric = tags.get(PHOTOMETRIC, 0)
    bits = tags.get(BITS, (1,))
    return (
        (is_raw and tags.get(PLANAR, 1) == 2)
        or (is_raw and photometric == YCBCR)
        or (photometric == WHITE_IS_ZERO and bits[0] >= 8)
        or bits[0] == 12
    )


def orientation_of(image: Image.Image) -> int:
    """As Detectron2 reads it: metadata that cannot be read have no orientation."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001
        return 1


def require_close(found: Pixels, expected: npt.NDArray[Any], tolerance: float = ROUNDING) -> None:
    assert found.shape == expected.shape
    assert np.abs(found.astype(float) - expected).max() <= tolerance


@settings(max_examples=FILE_EXAMPLES)
@given(file=metadata_files())
def test_mutated_metadata_change_at_most_the_orientation(file: MetadataFile) -> None:
    found = decode(file.body)
    assert not isinstance(found, int), f"{file.file_format} rejected: {found}"
    expected = by_pillow(file.body)
    event(f"{file.file_format}, Pillow {'rejects' if expected is None else 'reads'} it")
    if expected is not None:
        require_close(found, expected)
    plain = decode(file.plain)
    assert not isinstance(plain, int)
    turns = [plain, plain[::-1], plain[:, ::-1], plain[::-1, ::-1]]
    turns += [turn.transpose(1, 0, 2) for turn in turns]
    assert any(np.array_equal(found, turn) for turn in turns)


@settings(max_examples=FILE_EXAMPLES)
@given(tiff=tagged_tiffs(METADATA_TAGS))
def test_tiff_metadata_do_not_change_the_pixels(tiff: Tiff) -> None:
    found = decode(tiff.encode())
    event(f"{found}" if isinstance(found, int) else "decoded")
    plain = decode(tiff_without(tiff).encode())
    if isinstance(plain, int):
        assert found == plain == 422
        return
    assert not isinstance(found, int)
    if 274 not in tiff.tags and 700 not in tiff.tags:
        np.testing.assert_array_equal(found, plain)
        require_close(found, pixels_of(tiff), 2.5)


def tiff_without(tiff: Tiff) -> Tiff:
    """The file without further tags."""
    variant = (tiff.photometric, tiff.bits, tiff.extra, tiff.planar, tiff.order, tiff.compression)
    return tiff_of(variant, {})


@settings(max_examples=FILE_EXAMPLES)
@given(tiff=tagged_tiffs(PIXEL_TAGS), changes=st.dictionaries(
    st.integers(0, 200), st.integers(0, 255), max_size=2))  # fmt: skip
def test_mutated_tiff_tags_are_read_as_by_pillow(tiff: Tiff, changes: dict[int, int]) -> None:
    body = with_entry_bytes(tiff.encode(), changes)
    found, expected = decode(body), by_pillow(body)
    event(f"{found}" if isinstance(found, int) else "decoded")
    if isinstance(found, int) or expected is None:
        return
    require_close(found, expected)


@settings(max_examples=FILE_EXAMPLES)
@given(seed=mutated_seeds())
def test_mutated_files_are_read_as_by_pillow(seed: Seed) -> None:
    found, expected = decode(seed.body), by_pillow(seed.body)
    event(f"{found}" if isinstance(found, int) else "decoded")
    if isinstance(found, int) or expected is None:
        return
    require_close(found, expected)
