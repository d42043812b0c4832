"""Options for reading arrays; dtypes and shapes are tested in test_npy.py."""

from typing import Any

import numpy as np
import pytest

from d2serve.errors import RequestError
from d2serve.inputs.arrays import read_array
from d2serve.messages import Options
from d2serve.settings import Settings
from tests.bodies import noise

HWC = noise(5, 8, 3)
CHW = HWC.transpose(2, 0, 1)
GRAYS = noise(5, 5, 8)


def read(array: "np.ndarray[Any, Any]", **options: Any) -> Any:
    return read_array(array, Options(0.0, 100, **options), Settings())


LAYOUTS: dict[str, tuple[str, "np.ndarray[Any, Any]", int]] = {
    "auto-hw": ("auto", HWC[:, :, 0], 1),
    "auto-hwc": ("auto", HWC, 1),
    "auto-chw": ("auto", CHW, 1),
    "auto-nhw": ("auto", GRAYS, 5),
    "auto-nhwc": ("auto", HWC[None], 1),
    "auto-nchw": ("auto", CHW[None], 1),
    "hwc-hw": ("hwc", HWC[:, :, 0], 1),
    "hwc-hwc": ("hwc", HWC, 1),
    "hwc-nhwc": ("hwc", HWC[None], 1),
    "chw-hw": ("chw", HWC[:, :, 0], 1),
    "chw-chw": ("chw", CHW, 1),
    "chw-nchw": ("chw", CHW[None], 1),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_read(name: str) -> None:
    layout, array, count = LAYOUTS[name]
    images = read(array, input_layout=layout).images
    assert [image.shape for image in images] == [(5, 8, 3)] * count
    if array.shape[-3:] in (HWC.shape, CHW.shape):
        np.testing.assert_array_equal(images[0], HWC)


@pytest.mark.parametrize(
    ("layout", "array"),
    [
        ("hwc", CHW),
        ("hwc", CHW[None]),
        ("hwc", GRAYS),
        ("chw", HWC),
        ("chw", HWC[None]),
        ("chw", GRAYS),
    ],
)
def test_mismatch_with_input_layout_is_a_422(layout: str, array: "np.ndarray[Any, Any]") -> None:
    with pytest.raises(RequestError, match="input_layout") as raised:
        read(array, input_layout=layout)
    assert raised.value.status == 422


def test_ambiguous_layout_is_channels_last_by_default() -> None:
    both = noise(3, 5, 3)
    np.testing.assert_array_equal(read(both).images[0], both)
    np.testing.assert_array_equal(read(both, input_layout="chw").images[0], both.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("shape", "images"),
    [
        pytest.param((2, 8, 9), [(8, 9)] * 2, id="NxHxW"),
        pytest.param((8, 8, 9), [(8, 9)] * 8, id="NxHxW-as-many-as-rows"),
        pytest.param((3, 8, 9), [(8, 9)], id="CxHxW"),
        pytest.param((1, 8, 9), [(8, 9)], id="1xHxW"),
        pytest.param((8, 9, 1), [(8, 9)], id="HxWx1"),
        pytest.param((2, 8, 3), [(2, 8)], id="HxWx3-with-two-rows"),
        pytest.param((3, 8, 4), [(3, 8)], id="channels-last-wins"),
        pytest.param((2, 8, 9, 3), [(8, 9)] * 2, id="NxHxWx3"),
        pytest.param((9, 4, 5, 1), [(4, 5)] * 9, id="NxHxWx1-with-more-images-than-rows"),
        pytest.param((2, 4, 8, 9), [(8, 9)] * 2, id="NxCxHxW"),
        pytest.param((8, 9, 2), None, id="two-channels-last"),
        pytest.param((8, 9, 7), None, id="seven-channels-last"),
        pytest.param((9, 8, 9), None, id="more-images-than-rows"),
        pytest.param((2, 8, 9, 2), None, id="two-channels-last-in-a-batch"),
        pytest.param((2, 7, 8, 9), None, id="seven-channels-first-in-a-batch"),
    ],
)
def test_auto_layout(shape: tuple[int, ...], images: list[tuple[int, int]] | None) -> None:
    array = np.zeros(shape, np.uint8)
    if images is not None:
        assert [image.shape[:2] for image in read(array).images] == images
        return
    with pytest.raises(RequestError, match="is not that of an image") as raised:
        read(array)
    assert raised.value.status == 422
    assert "NxHxWx1" in raised.value.hint


@pytest.mark.parametrize("layout", ["auto", "chw"])
def test_bgr_is_converted_to_rgb(layout: str) -> None:
    array = HWC if layout == "auto" else CHW
    (image,) = read(array, input_color="bgr", input_layout=layout).images
    np.testing.assert_array_equal(image, HWC[:, :, ::-1])
    assert image.flags["C_CONTIGUOUS"]


def test_bgra_is_converted_to_rgb_without_alpha() -> None:
    bgra = np.dstack((HWC[:, :, ::-1], noise(5, 8)))
    np.testing.assert_array_equal(read(bgra, input_color="bgr").images[0], HWC)


def test_gray_ignores_input_color() -> None:
    (image,) = read(GRAYS[0], input_color="bgr").images
    np.testing.assert_array_equal(image[:, :, 0], GRAYS[0])


RANGES: dict[str, tuple[str, Any, str, int]] = {
    # Requested range, value, reported range, converted value.
    "auto-uint8": ("auto", np.uint8(1), "0-255", 1),
    "auto-uint16": ("auto", np.uint16(257), "0-65535", 1),
    "auto-bool": ("auto", np.bool_(True), "0-1", 255),
    "auto-float-of-zeros": ("auto", np.float32(0), "0-1", 0),
    "auto-float-of-ones": ("auto", np.float32(1), "0-1", 255),
    "auto-float-below-zero": ("auto", np.float64(-1), "-1-1", 0),
    "auto-float-above-one": ("auto", np.float16(2), "0-255", 2),
    "0-255-float": ("0-255", np.float32(1), "0-255", 1),
    "0-255-uint16": ("0-255", np.uint16(200), "0-255", 200),
    "0-1-uint8": ("0-1", np.uint8(1), "0-1", 255),
    "0-1-half": ("0-1", np.float64(0.5), "0-1", 128),
    "-1-1-zero": ("-1-1", np.float32(0), "-1-1", 128),
    "-1-1-uint8": ("-1-1", np.uint8(1), "-1-1", 255),
    "0-255-bool": ("0-255", np.bool_(True), "0-1", 255),
}


@pytest.mark.parametrize("name", RANGES)
def test_value_range_is_applied_and_reported(name: str) -> None:
    requested, value, reported, converted = RANGES[name]
    result = read(np.full((4, 4), value), input_range=requested)
    assert result.value_range == reported
    assert result.images[0][0, 0].tolist() == [converted] * 3


@pytest.mark.parametrize(
    ("requested", "value"),
    [
        ("0-1", np.float32(1.001)),
        ("0-1", np.float32(-0.001)),
        ("0-1", np.uint8(2)),
        ("-1-1", np.float64(-1.001)),
        ("0-255", np.float32(255.1)),
        ("0-255", np.uint16(256)),
        ("0-255", np.float32(-1)),
        ("0-255", np.float32("nan")),
        ("auto", np.float32("inf")),
        ("auto", np.float32(-2)),
        ("auto", np.float64(256)),
    ],
)
def test_value_out_of_range_is_a_422(requested: str, value: Any) -> None:
    array = np.zeros((4, 4), value.dtype)
    array[2, 3] = value
    with pytest.raises(RequestError) as raised:
        read(array, input_range=requested)
    assert raised.value.status == 422


@pytest.mark.parametrize(
    ("shape", "is_batch"), [((4, 4), False), ((4, 4, 3), False), ((1, 4, 4, 3), True)]
)
def test_leading_n_makes_a_batch(shape: tuple[int, ...], is_batch: bool) -> None:
    assert read(np.zeros(shape, np.uint8)).is_batch is is_batch


def test_nonzero_bool_byte_is_true() -> None:
    odd = np.full((4, 4), 7, np.uint8).view(np.bool_)
    assert read(odd).images[0].tolist() == np.full((4, 4, 3), 255).tolist()
