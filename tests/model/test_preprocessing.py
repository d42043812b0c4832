"""Images are resized, padded to batches and transferred like in Detectron2."""

import numpy as np
import pytest
import torch
from PIL import Image

from d2serve.model.config import InputConfig
from d2serve.model.preprocessing import (
    pack,
    pad_to_batch,
    padded_size,
    planar,
    resize_image,
    resize_on_device,
    shortest_edge_size,
    to_device,
    to_host,
    unpack,
)


@pytest.mark.parametrize(
    ("size_hw", "min_size", "max_size", "expected"),
    [
        pytest.param((480, 640), 800, 1333, (800, 1067), id="landscape"),
        pytest.param((640, 480), 800, 1333, (1067, 800), id="portrait"),
        pytest.param((500, 500), 800, 1333, (800, 800), id="square"),
        pytest.param((400, 1200), 800, 1333, (444, 1333), id="limited by the longer side"),
        pytest.param((800, 1333), 800, 1333, (800, 1333), id="same size"),
        pytest.param((3000, 4000), 800, 1333, (800, 1067), id="smaller"),
        pytest.param((37, 41), 0, 1333, (37, 41), id="no resize"),
        pytest.param((1, 10_000), 800, 1333, (1, 1333), id="a line keeps one pixel"),
    ],
)
def test_shortest_edge_size(
    size_hw: tuple[int, int], min_size: int, max_size: int, expected: tuple[int, int]
) -> None:
    assert shortest_edge_size(size_hw, min_size, max_size) == expected


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_resizing_equals_pillow_in_the_configured_channel_order(order: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    config = InputConfig(order, 60, 100, (0.0,) * 3, (1.0,) * 3)
    reference = np.asarray(Image.fromarray(image).resize((80, 60), Image.Resampling.BILINEAR))
    reference = reference if order == "RGB" else reference[:, :, ::-1]
    resized = resize_image(image, config)
    assert resized.dtype == torch.uint8
    np.testing.assert_array_equal(resized.permute(1, 2, 0).numpy(), reference)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize(
    ("size_hw", "min_size"),
    [
        pytest.param((30, 40), 61, id="larger"),
        pytest.param((300, 401), 100, id="smaller"),
        pytest.param((100, 1000), 50, id="limited by the longer side"),
        pytest.param((90, 120), 90, id="same size"),
        pytest.param((37, 41), 0, id="no resize"),
        pytest.param((1, 700), 60, id="a line"),
    ],
)
def test_resizing_on_the_device_differs_from_pillow_by_at_most_one(
    size_hw: tuple[int, int], min_size: int, order: str
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    image.flags.writeable = False
    config = InputConfig(order, min_size, 200, (0.0,) * 3, (1.0,) * 3)
    expected = resize_image(image, config)
    new_size_hw = shortest_edge_size(size_hw, config.min_size, config.max_size)
    resized = resize_on_device(planar(image, config), new_size_hw)
    assert resized.dtype == torch.uint8
    difference = (resized.int() - expected.int()).abs()
    assert resized.shape == expected.shape
    assert difference.max() <= 1
    assert difference.float().mean() <= 0.02


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [((1, 1), (32, 32)), ((32, 64), (32, 64)), ((33, 64), (64, 64)), ((800, 1067), (800, 1088))],
)
def test_padded_size(size_hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert padded_size(size_hw, 32) == expected


@pytest.mark.parametrize("size_hw", [(1, 1), (100, 90), (128, 128)])
def test_images_are_padded_to_the_square_size_if_given(size_hw: tuple[int, int]) -> None:
    assert padded_size(size_hw, 1, square_size=128) == (128, 128)
    assert padded_size(size_hw, 32, square_size=100) == (128, 128)
    assert pad_to_batch([torch.ones(3, *size_hw)], 1, square_size=128).shape == (1, 3, 128, 128)


def test_a_batch_has_each_image_at_its_top_left_and_zeros_elsewhere() -> None:
    images = [torch.full((3, 20, 40), 1.0), torch.full((3, 33, 10), 2.0)]
    batch = pad_to_batch(images, 32)
    assert batch.shape == (2, 3, 64, 64)
    for padded, image in zip(batch, images, strict=True):
        height, width = image.shape[1:]
        assert torch.equal(padded[:, :height, :width], image)
        assert padded.sum() == image.sum()


def test_packed_tensors_are_unpacked_in_their_shapes() -> None:
    tensors = [
        torch.rand(3, 4),
        torch.tensor([5, (1 << 24) - 1]),
        torch.zeros(0, 28, 28),
        torch.rand(2, 3, 3).transpose(0, 2),
    ]
    unpacked = unpack(pack(tensors), [tensor.shape for tensor in tensors])
    for before, after in zip(tensors, unpacked, strict=True):
        assert after.dtype is torch.float32
        assert torch.equal(after, before.float())


def test_transfer_to_and_from_the_cpu_copies_nothing() -> None:
    values = torch.rand(3)
    [same] = to_host([values])
    assert same is values
    assert to_device(values, torch.device("cpu")) is values
