import io
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from d2serve.detections import RGBImage
from d2serve.errors import RequestError
from d2serve.inputs.arrays import read_array
from d2serve.inputs.npy import read_npy
from d2serve.messages import Options
from d2serve.settings import Settings
from tests.bodies import noise, npy_bytes

MAX_PIXELS = 10_000
MAX_IMAGES = 4

RGB = noise(6, 7, 3)
GRAY = noise(6, 7)
RGBA = np.dstack((RGB, noise(6, 7, seed=1)))
BATCH = np.stack((RGB, noise(6, 7, 3, seed=2)))


def decode(body: bytes) -> list[npt.NDArray[np.uint8]]:
    return decode_npy(body, MAX_PIXELS, MAX_IMAGES)


def decode_npy(body: bytes, max_pixels: int, max_images: int) -> list[RGBImage]:
    settings = Settings(max_image_pixels=max_pixels, max_images_per_request=max_images)
    array = read_npy(body)
    return [*read_array(array, Options(0.0, 100), settings).images]


def rejected(body: bytes) -> RequestError:
    with pytest.raises(RequestError) as raised:
        decode(body)
    return raised.value


def as_rgb(gray: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.repeat(gray[:, :, None], 3, axis=2)


def npy_claiming(descr: str, shape: str, version: bytes = b"\x01\x00") -> bytes:
    """An NPY header with a dtype and a shape as Python source, without values."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        pytest.param(RGB[:1, :1], [RGB[:1, :1]], id="one-pixel"),
        pytest.param(GRAY, [as_rgb(GRAY)], id="HxW"),
        pytest.param(GRAY[:, :, None], [as_rgb(GRAY)], id="HxWx1"),
        pytest.param(RGB, [RGB], id="HxWx3"),
        pytest.param(RGBA, [RGB], id="HxWx4"),
        pytest.param(GRAY[None], [as_rgb(GRAY)], id="1xHxW"),
        pytest.param(RGB.transpose(2, 0, 1).copy(), [RGB], id="3xHxW"),
        pytest.param(RGBA.transpose(2, 0, 1).copy(), [RGB], id="4xHxW"),
        pytest.param(np.stack((GRAY, GRAY.T.reshape(6, 7))), None, id="NxHxW"),
        pytest.param(RGB[None], [RGB], id="1xHxWx3"),
        pytest.param(BATCH, list(BATCH), id="NxHxWx3"),
        pytest.param(np.stack((GRAY, 255 - GRAY))[..., None], None, id="NxHxWx1"),
        pytest.param(np.stack((RGBA, RGBA)), [RGB, RGB], id="NxHxWx4"),
        pytest.param(BATCH.transpose(0, 3, 1, 2).copy(), list(BATCH), id="Nx3xHxW"),
        pytest.param(np.stack((GRAY, 255 - GRAY))[:, None], None, id="Nx1xHxW"),
        pytest.param(np.asfortranarray(RGB), [RGB], id="HxWx3-fortran-order"),
        pytest.param(np.asfortranarray(GRAY), [as_rgb(GRAY)], id="HxW-fortran-order"),
        pytest.param(RGB.transpose(2, 0, 1), [RGB], id="3xHxW-not-contiguous"),
        pytest.param(np.asfortranarray(BATCH), list(BATCH), id="NxHxWx3-fortran-order"),
    ],
)
def test_all_layouts_become_rgb(
    array: npt.NDArray[np.uint8], expected: list[npt.NDArray[np.uint8]] | None
) -> None:
    if expected is None:
        expected = [as_rgb(gray.reshape(6, 7)) for gray in array]
    decoded = decode(npy_bytes(array))
    assert len(decoded) == len(expected)
    for image, wanted in zip(decoded, expected, strict=True):
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(image, wanted)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        pytest.param("u1", [[0, 255, 7]], [0, 255, 7], id="uint8"),
        pytest.param("u2", [[0, 128, 129, 65535]], [0, 0, 1, 255], id="uint16"),
        pytest.param("?", [[False, True, True]], [0, 255, 255], id="bool"),
        pytest.param("f2", [[0, 0.5, 1]], [0, 128, 255], id="float16-0-1"),
        pytest.param("f4", [[0, 0.5, 1]], [0, 128, 255], id="float32-0-1"),
        pytest.param("f8", [[0, 0.2, 1]], [0, 51, 255], id="float64-0-1"),
        pytest.param("f4", [[0.0, 0.0, 0.0]], [0, 0, 0], id="float32-all-zero"),
        pytest.param("f4", [[0.2, 0.4, 0.8]], [51, 102, 204], id="float32-within-0-1"),
        pytest.param("f2", [[-1, 0, 1]], [0, 128, 255], id="float16--1-1"),
        pytest.param("f4", [[-1, -0.2, 1]], [0, 102, 255], id="float32--1-1"),
        pytest.param("f8", [[-0.2, 0.6, 0.6]], [102, 204, 204], id="float64--1-1"),
        pytest.param("f2", [[0, 1.5, 255]], [0, 2, 255], id="float16-0-255"),
        pytest.param("f4", [[0, 99.4, 99.6]], [0, 99, 100], id="float32-0-255"),
        pytest.param("f8", [[0, 0.5, 255]], [0, 0, 255], id="float64-0-255"),
        pytest.param("f8", [[0, 1, 1.001]], [0, 1, 1], id="float64-just-over-1"),
    ],
)
def test_all_dtypes_become_8_bits(
    dtype: str, values: list[list[Any]], expected: list[int], order: str
) -> None:
    array = np.array(values, dtype=np.dtype(dtype).newbyteorder("<" if order == "little" else ">"))
    (image,) = decode(npy_bytes(array))
    assert image.shape == (1, len(expected), 3)
    assert image[0, :, 0].tolist() == expected


def test_value_range_is_that_of_the_whole_array() -> None:
    dark, bright = np.zeros((2, 2, 3)), np.full((2, 2, 3), 200.0)
    dark[0, 0] = 1.0
    first, second = decode(npy_bytes(np.stack((dark, bright))))
    assert first.max() == 1
    assert second.min() == 200


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_all_npy_versions_are_read(version: tuple[int, int]) -> None:
    file = io.BytesIO()
    np.lib.format.write_array(file, RGB, version=version)  # type: ignore[no-untyped-call]
    (image,) = decode(file.getvalue())
    np.testing.assert_array_equal(image, RGB)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("{'descr':'|u1','fortran_order':False,'shape':(6,7,3)}", id="compact"),
        pytest.param(
            '{"shape": (6, 7, 3), "fortran_order": False, "descr": "|u1"}\n', id="another-order"
        ),
        pytest.param(
            "{'descr': '|u1', 'fortran_order': False, 'shape': (6L, 7L, 3L), }", id="python-2"
        ),
        pytest.param(
            " { 'shape' : ( 6 , 7 , 3 , ) ,\n'descr' : 'B', 'fortran_order' : False , } ",
            id="many-spaces",
        ),
    ],
)
def test_headers_of_other_programs_are_read(header: str) -> None:
    body = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    np.testing.assert_array_equal(read_npy(body + RGB.tobytes()), RGB)


def test_header_is_read_without_the_compiler_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that use it at once fail at times, in some versions of Python."""

    def fail(*_: object, **__: object) -> None:
        raise SystemError("AST constructor recursion depth mismatch")

    body = npy_bytes(RGB)
    monkeypatch.setattr("ast.parse", fail)
    with pytest.raises(SystemError):
        np.load(io.BytesIO(body))
    np.testing.assert_array_equal(read_npy(body), RGB)


def test_bytes_after_the_array_are_ignored() -> None:
    (image,) = decode(npy_bytes(RGB) + b"\n")
    np.testing.assert_array_equal(image, RGB)


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.array([[0, np.nan]], dtype=np.float16), id="nan-float16"),
        pytest.param(np.array([[0, np.nan]], dtype=np.float64), id="nan-float64"),
        pytest.param(np.array([[0, np.inf]], dtype=np.float32), id="infinity"),
        pytest.param(np.array([[0, -np.inf]], dtype=np.float32), id="minus-infinity"),
        pytest.param(np.array([[np.nan, np.inf]], dtype=np.float32), id="nan-and-infinity"),
    ],
)
def test_non_finite_values_are_a_422(
    array: npt.NDArray[np.floating[Any]],
) -> None:
    error = rejected(npy_bytes(array))
    assert (error.status, error.code) == (422, "unprocessable")
    assert error.message == "the array contains NaN or infinity"


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.array([[0, 255.5]], dtype=np.float32), id="over-255"),
        pytest.param(np.array([[0, 255.0000001]], dtype=np.float64), id="hardly-over-255"),
        pytest.param(np.array([[-1.5, 0]], dtype=np.float32), id="under-minus-1"),
        pytest.param(np.array([[-0.5, 1.5]], dtype=np.float32), id="negative-and-over-1"),
        pytest.param(np.array([[0, 1e300]], dtype=np.float64), id="exceeds-float32"),
        pytest.param(np.array([[-1e300, 1e300]], dtype=np.float64), id="a-span-over-everything"),
    ],
)
def test_values_beyond_all_ranges_are_a_422(
    array: npt.NDArray[np.floating[Any]],
) -> None:
    error = rejected(npy_bytes(array))
    assert (error.status, error.code) == (422, "unprocessable")


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.zeros((4, 4), dtype=np.int8), id="int8"),
        pytest.param(np.zeros((4, 4), dtype=np.int64), id="int64"),
        pytest.param(np.zeros((4, 4), dtype=np.uint32), id="uint32"),
        pytest.param(np.zeros((4, 4), dtype=np.uint64), id="uint64"),
        pytest.param(np.zeros((4, 4), dtype=np.longdouble), id="longdouble"),
        pytest.param(np.zeros((4, 4), dtype=np.complex64), id="complex"),
        pytest.param(np.full((4, 4), "pixel"), id="text"),
        pytest.param(np.full((4, 4), b"pixel"), id="bytes"),
        pytest.param(np.zeros((4, 4), dtype="M8[s]"), id="datetime"),
        pytest.param(np.zeros((4, 4), dtype="m8[ms]"), id="timedelta"),
        pytest.param(np.zeros((4, 4), dtype=[("r", "u1"), ("g", "u1")]), id="structured"),
        pytest.param(np.zeros((4, 4), dtype="V3"), id="void"),
    ],
)
def test_unsupported_dtype_is_a_422_that_lists_the_supported_ones(array: npt.NDArray[Any]) -> None:
    error = rejected(npy_bytes(array))
    assert (error.status, error.code) == (422, "unprocessable")
    assert "uint8, uint16, bool, float16, float32" in error.hint


class Explosive:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.trace,)


def test_pickled_array_is_a_422_and_not_executed(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    body = npy_claiming("'|O'", "(1, 1)") + pickle.dumps(Explosive(str(trace)))
    error = rejected(body)
    assert (error.status, error.code) == (422, "unprocessable")
    assert not trace.exists()
    np.load(io.BytesIO(body), allow_pickle=True)  # the payload would have worked
    assert trace.exists()


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((), id="a-number"),
        pytest.param((12,), id="a-line"),
        pytest.param((0,), id="an-empty-line"),
        pytest.param((0, 0), id="no-pixels"),
        pytest.param((4, 0), id="no-columns"),
        pytest.param((0, 4, 3), id="no-rows"),
        pytest.param((4, 4, 0), id="no-channels"),
        pytest.param((0, 4, 4, 3), id="no-images"),
        pytest.param((2, 5, 6, 5), id="five-channels"),
        pytest.param((2, 2, 4, 4, 3), id="five-axes"),
        pytest.param((1,) * 32, id="many-axes"),
    ],
)
def test_unsupported_shape_is_a_422_that_lists_the_supported_ones(
    shape: tuple[int, ...],
) -> None:
    error = rejected(npy_bytes(np.zeros(shape, dtype=np.uint8)))
    assert (error.status, error.code) == (422, "unprocessable")
    assert "HxW" in error.hint


def test_array_without_values_whose_sides_wrap_around_is_a_422() -> None:
    error = rejected(npy_claiming("'|u1'", f"(0, {10**17}, {10**17})"))
    assert (error.status, error.code) == (422, "unprocessable")


def test_raw_values_are_a_400_with_a_hint_to_numpy_save() -> None:
    error = rejected(RGB.tobytes())
    assert (error.status, error.code) == (400, "bad_request")
    assert "numpy.save" in error.hint
    assert "tobytes" in error.hint


@pytest.mark.parametrize("array", [RGB, np.zeros((6, 7), np.float32)], ids=["uint8", "float32"])
def test_truncated_npy_is_a_400(array: npt.NDArray[Any]) -> None:
    body = npy_bytes(array)
    for length in range(len(body)):
        error = rejected(body[:length])
        assert (error.status, error.code) == (400, "bad_request")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x93NUMPY", id="only-the-magic"),
        pytest.param(b"\x93NUMPY\x04\x00" + npy_bytes(RGB)[8:], id="fourth-version"),
        pytest.param(b"\x93NUMPY\x00\x00" + npy_bytes(RGB)[8:], id="version-zero"),
        pytest.param(b"\x93NUMPY\xff\xff" + npy_bytes(RGB)[8:], id="version-255"),
        pytest.param(b"\x94NUMPY" + npy_bytes(RGB)[6:], id="wrong-magic"),
        pytest.param(npy_claiming("'|u1'", "(-1, 4)"), id="negative-side"),
        pytest.param(npy_claiming("'|u1'", "(-2, -2)"), id="negative-sides-of-positive-product"),
        pytest.param(npy_claiming("'|u1'", "(0, -4)"), id="zero-and-negative-sides"),
        pytest.param(npy_claiming("'|u1'", "(2.0, 2)"), id="side-of-a-fraction"),
        pytest.param(npy_claiming("'|u1'", "'4'"), id="shape-as-text"),
        pytest.param(npy_claiming("'|u1'", "(2, 2"), id="header-that-does-not-parse"),
        pytest.param(npy_claiming("'|u1'", "__import__('os').abort()"), id="header-with-a-call"),
        pytest.param(npy_claiming("'|u1'", "(2, 2), 'shape': (2, 2)"), id="a-key-twice"),
        pytest.param(npy_claiming("'f3'", "(2, 2)"), id="dtype-of-no-size"),
        pytest.param(npy_claiming("'|u1'", "(" * 500 + ")" * 500), id="header-deeply-nested"),
        pytest.param(npy_claiming("'rubbish'", "(2, 2)"), id="unknown-dtype"),
        pytest.param(npy_claiming("'|u1', 'more': 1", "(2, 2)"), id="a-key-too-many"),
    ],
)
def test_invalid_npy_is_a_400(body: bytes) -> None:
    error = rejected(body)
    assert (error.status, error.code) == (400, "bad_request")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            npy_claiming("'|u1'", "(2, 2)" + " " * 20_000) + bytes(4), id="over-long-header"
        ),
        pytest.param(
            npy_claiming("'|u1'", "(2, 2)" + " " * 100_000, b"\x02\x00") + bytes(4),
            id="over-long-header-of-the-second-version",
        ),
        pytest.param(
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100), id="header-claiming-4-gigabytes"
        ),
    ],
)
def test_long_npy_header_is_a_413(body: bytes) -> None:
    error = rejected(body)
    assert (error.status, error.code) == (413, "too_large")


@pytest.mark.parametrize(
    ("descr", "shape"),
    [
        pytest.param("'|u1'", "(1000000, 1000000, 3)", id="3-terabytes"),
        pytest.param("'<f8'", "(10000000000000000000000, 3)", id="more-than-64-bits-count"),
        pytest.param("'|u1'", "(4294967296, 4294967296)", id="a-product-that-wraps-around"),
        pytest.param("'|b1'", "(100000, 100000)", id="10-gigabytes"),
        pytest.param("'|u1'", f"(0, {10**40})", id="no-values-in-a-side-over-64-bits"),
    ],
)
def test_huge_shape_in_the_header_is_a_400_without_allocation(descr: str, shape: str) -> None:
    tracemalloc.start()
    try:
        error = rejected(npy_claiming(descr, shape) + bytes(100))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (error.status, error.code) == (400, "bad_request")
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("shape", "max_pixels", "max_images"),
    [
        pytest.param((4, 5), 20, 1, id="one"),
        pytest.param((3, 4, 5), 20, 1, id="channels-do-not-count"),
        pytest.param((2, 4, 5, 3), 20, 2, id="pixels-count-for-each"),
    ],
)
def test_array_at_the_limits_is_decoded(
    shape: tuple[int, ...], max_pixels: int, max_images: int
) -> None:
    assert decode_npy(npy_bytes(np.zeros(shape, dtype=np.uint8)), max_pixels, max_images)


@pytest.mark.parametrize(
    ("shape", "max_pixels", "max_images", "message"),
    [
        pytest.param((4, 5), 19, 1, "5x4, the limit is 19 pixels", id="pixels"),
        pytest.param((3, 4, 5), 19, 1, "5x4, the limit is 19 pixels", id="pixels-CxHxW"),
        pytest.param((1, 4, 5, 3), 19, 1, "5x4, the limit is 19 pixels", id="pixels-of-a-batch"),
        pytest.param((3, 4, 5, 3), 20, 2, "3 images, the limit is 2", id="images"),
        pytest.param((6, 6, 7), 42, 5, "6 images, the limit is 5", id="images-NxHxW"),
    ],
)
def test_array_over_a_limit_is_a_413_with_both_numbers(
    shape: tuple[int, ...], max_pixels: int, max_images: int, message: str
) -> None:
    with pytest.raises(RequestError, match=message) as raised:
        decode_npy(npy_bytes(np.zeros(shape, dtype=np.uint8)), max_pixels, max_images)
    assert (raised.value.status, raised.value.code) == (413, "too_large")
