"""Swin, BEiT and ConvNeXt networks beyond their goldens."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from d2serve.errors import ConfigError
from d2serve.model.beit import DiT
from d2serve.model.int8 import calibrate
from d2serve.model.linear import Linear
from d2serve.model.optimize import optimize
from d2serve.model.packed_conv import pack
from d2serve.model.packed_rows import PackedRows
from d2serve.model.swin import SwinTransformer
from d2serve.model.vision_transformer_config import BEiTConfig, SwinConfig
from d2serve.model.windows import MASKED, make_windows, relative_indices
from tests.goldens.cases import RESULTS, TINY
from tests.goldens.seeded_weights import seeded_weights

CPU = torch.device("cpu")
BY_NAME = {golden.name: golden for golden in TINY}
BEIT = BEiTConfig(
    patch_size=16,
    dim=16,
    depth=4,
    heads=2,
    layer_scale=True,
    positions_hw=(3, 5),
    features=("layer0", "layer1", "layer2", "layer3"),
    feature_blocks=(0, 1, 2, 3),
)
SWIN = SwinConfig(
    patch_size=4,
    dim=8,
    depths=(2, 1, 1, 1),
    heads=(1, 2, 2, 2),
    window_size=4,
    mlp_ratio=2.0,
    qkv_bias=True,
    query_scale=None,
    norm_eps=1e-5,
    patch_norm=True,
    absolute_positions=False,
    pretrain_image_size=224,
    features=("res2", "res5"),
    feature_stages=(0, 3),
)


def seeded(network: Any) -> Any:
    shapes = {name: tuple(each.shape) for name, each in network.state_dict().items()}
    weights = {name: torch.from_numpy(each) for name, each in seeded_weights(shapes).items()}
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def images(height: int, width: int) -> Tensor:
    values = torch.arange(2 * 3 * height * width, dtype=torch.float32).sin()
    return values.view(2, 3, height, width).to(memory_format=torch.channels_last)


@pytest.mark.parametrize(("name", "layer_scale"), [("dit", True), ("beit", False)])
def test_feature_maps_equal_those_of_beit(name: str, layer_scale: bool) -> None:
    network = seeded(DiT(BEiTConfig(**{**vars(BEIT), "layer_scale": layer_scale})))
    expected = json.loads((RESULTS / "beit_features.json").read_text())[name]
    for level, features in network(images(64, 96)).items():
        found = features[1, ::5, ::3, ::4].flatten()
        torch.testing.assert_close(found, torch.tensor(expected[level]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size_hw", [(8, 12), (7, 9), (3, 4), (4, 13)])
def test_windows_contain_every_cell_once_and_mask_cells_that_are_not_neighbours(
    size_hw: tuple[int, int],
) -> None:
    (height, width), window, shift = size_hw, 4, 2
    windows = make_windows(2, size_hw, window, shift, CPU)
    columns = -(-width // window) * window
    rows = -(-height // window) * window
    assert sorted(windows.cells.tolist()) == list(range(2 * rows * columns))
    inside = windows.cells[windows.positions].view(2, height, width)
    image, y, x = torch.meshgrid(*map(torch.arange, (2, height, width)), indexing="ij")
    assert torch.equal(inside, (image * rows + y) * columns + x)
    cells = windows.cells.view(-1, window**2)
    for group, mask in zip(cells.split(windows.counts), windows.masks, strict=True):
        y, x = group // columns, group % columns
        apart = torch.maximum(
            (y[:, :, None] - y[:, None]).abs(), (x[:, :, None] - x[:, None]).abs()
        )
        expected = torch.zeros(window**2, window**2) if mask is None else mask
        assert set(expected.unique().tolist()) <= {0.0, MASKED}
        # In a grid of a single window the parts of a moved window are near each other.
        if min(rows, columns) > window:
            assert torch.equal((apart >= window).float() * MASKED, expected.expand(apart.shape))


def test_relative_indices_count_rows_then_columns() -> None:
    table = relative_indices(3, CPU).view(9, 9)
    assert table[0, 0] == table[8, 8] == 12  # the centre of 5x5
    assert [table[0, 8], table[8, 0], table[0, 1]] == [0, 24, 11]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_layers_equal_plain_ones(dtype: torch.dtype) -> None:
    plain, packed = (seeded(SwinTransformer(SWIN)).to(dtype) for _ in range(2))
    pack(packed)
    kinds = {type(each) for each in packed.modules()}
    assert PackedRows in kinds
    assert Linear not in kinds
    batch = images(50, 70).to(dtype)
    with torch.inference_mode():
        expected, found = plain(batch), packed(batch)
    assert list(found) == ["res2", "res5"]
    for name, features in found.items():
        assert features.is_contiguous(memory_format=torch.channels_last)
        tolerance = 1e-4 if dtype is torch.float32 else 0.2
        torch.testing.assert_close(features, expected[name], rtol=0.0, atol=tolerance)


def test_a_batch_equals_single_images() -> None:
    network = seeded(SwinTransformer(SWIN))
    batch = images(50, 70)
    with torch.inference_mode():
        together = network(batch)
        for index in range(2):
            for name, alone in network(batch[index : index + 1]).items():
                torch.testing.assert_close(together[name][index], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["mask_rcnn_swint", "faster_rcnn_convnext"])
def test_int8_is_for_resnets(name: str) -> None:
    model = optimize(BY_NAME[name].build())
    with pytest.raises(ConfigError, match=r"backbone is a (SwinTransformer|ConvNeXt) with FPN"):
        calibrate(model, [])
