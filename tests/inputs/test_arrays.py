"""How options say that arrays are read; dtypes and shapes are in test_npy.py."""

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
GREYS = noise(6, 5, 8)


def read(array: "np.ndarray[Any, Any]", **options: Any) -> Any:
    return read_array(array, Options(0.0, 100, **options), Settings())


LAYOUTS: dict[str, tuple[str, "np.ndarray[Any, Any]", int]] = {
    "auto-hw": ("auto", HWC[:, :, 0], 1),
    "auto-hwc": ("auto", HWC, 1),
    "auto-chw": ("auto", CHW, 1),
    "auto-nhw": ("auto", GREYS, 6),
    "auto-nhwc": ("auto", HWC[None], 1),
    "auto-nchw": ("auto", CHW[None], 1),
    "hwc-hw": ("hwc", HWC[:, :, 0], 1),
    "hwc-hwc": ("hwc", HWC, 1),
    "hwc-nhw": ("hwc", GREYS, 6),
    "hwc-nhwc": ("hwc", HWC[None], 1),
    "chw-hw": ("chw", HWC[:, :, 0], 1),
    "chw-chw": ("chw", CHW, 1),
    "chw-nhw": ("chw", GREYS, 6),
    "chw-nchw": ("chw", CHW[None], 1),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_read(name: str) -> None:
    layout, array, count = LAYOUTS[name]
    pictures = read(array, input_layout=layout).pictures
    assert [picture.shape for picture in pictures] == [(5, 8, 3)] * count
    if array.shape[-3:] in (HWC.shape, CHW.shape):
        np.testing.assert_array_equal(pictures[0], HWC)


@pytest.mark.parametrize(
    ("layout", "array"),
    [("hwc", CHW), ("hwc", CHW[None]), ("chw", HWC), ("chw", HWC[None])],
)
def test_another_layout_than_asked_for_is_a_422(layout: str, array: "np.ndarray[Any, Any]") -> None:
    with pytest.raises(RequestError, match="input_layout") as raised:
        read(array, input_layout=layout)
    assert raised.value.status == 422


def test_what_could_be_both_is_channels_last_unless_told() -> None:
    both = noise(3, 5, 3)
    np.testing.assert_array_equal(read(both).pictures[0], both)
    np.testing.assert_array_equal(
        read(both, input_layout="chw").pictures[0], both.transpose(1, 2, 0)
    )


@pytest.mark.parametrize("layout", ["auto", "chw"])
def test_bgr_is_turned(layout: str) -> None:
    array = HWC if layout == "auto" else CHW
    (picture,) = read(array, input_color="bgr", input_layout=layout).pictures
    np.testing.assert_array_equal(picture, HWC[:, :, ::-1])
    assert picture.flags["C_CONTIGUOUS"]


def test_bgra_is_turned_and_its_alpha_dropped() -> None:
    bgra = np.dstack((HWC[:, :, ::-1], noise(5, 8)))
    np.testing.assert_array_equal(read(bgra, input_color="bgr").pictures[0], HWC)


def test_grey_has_no_order_of_colours() -> None:
    (picture,) = read(GREYS[0], input_color="bgr").pictures
    np.testing.assert_array_equal(picture[:, :, 0], GREYS[0])


RANGES: dict[str, tuple[str, Any, str, int]] = {
    # The range asked for, a value, the range found, what the value becomes.
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
def test_a_range_is_read_and_told(name: str) -> None:
    asked, value, told, becomes = RANGES[name]
    found = read(np.full((4, 4), value), input_range=asked)
    assert found.value_range == told
    assert found.pictures[0][0, 0].tolist() == [becomes] * 3


@pytest.mark.parametrize(
    ("asked", "value"),
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
def test_a_value_out_of_the_range_is_a_422_and_never_clipped(asked: str, value: Any) -> None:
    array = np.zeros((4, 4), value.dtype)
    array[2, 3] = value
    with pytest.raises(RequestError) as raised:
        read(array, input_range=asked)
    assert raised.value.status == 422


@pytest.mark.parametrize(
    ("shape", "is_batch"), [((4, 4), False), ((4, 4, 3), False), ((1, 4, 4, 3), True)]
)
def test_a_leading_n_makes_a_batch(shape: tuple[int, ...], is_batch: bool) -> None:
    assert read(np.zeros(shape, np.uint8)).is_batch is is_batch


def test_a_bool_that_is_neither_zero_nor_one_is_true() -> None:
    odd = np.full((4, 4), 7, np.uint8).view(np.bool_)
    assert read(odd).pictures[0].tolist() == np.full((4, 4, 3), 255).tolist()
