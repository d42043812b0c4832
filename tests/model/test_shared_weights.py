"""Processes share one copy of the weights, and compute the same with it."""

import logging
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from d2serve.model.int8_conv import Int8Conv2d, Quantization, find_problem
from d2serve.model.layers import Conv2d, FullyConnectedConv2d
from d2serve.model.packed_conv import PackedConv2d, PackedLinear, pack
from d2serve.model.shared_weights import share_weights
from d2serve.model.winograd import WinogradConv2d

SOURCE = Quantization(0.1, 128)


def layers(dtype: torch.dtype) -> nn.Sequential:
    """Layers of each kind with equal weights in each call: packed ones, plain ones, and an 8-bit
    one if this CPU computes it."""
    torch.manual_seed(0)
    convolutions = [Conv2d(256, 256, 3, relu=True), Conv2d(256, 256, 3, groups=4)]
    model = nn.Sequential(
        *convolutions,
        nn.GroupNorm(4, 256),
        nn.Conv2d(256, 256, 1),
        FullyConnectedConv2d(256, 64, 5),
    )
    model.to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    pack(model)
    plain = nn.Conv2d(64, 256, 1, dtype=dtype)
    plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.append(plain)
    if not find_problem():
        model.append(Int8Conv2d(Conv2d(256, 256, 1), SOURCE, None, dtype))
    return model.requires_grad_(False).eval()


def run(model: nn.Module, dtype: torch.dtype) -> Tensor:
    features = torch.randn(1, 256, 5, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.inference_mode():
        output: Tensor = model(features.to(memory_format=torch.channels_last))
    return output


def weight_files(parent: Path) -> list[Path]:
    [folder] = parent.iterdir()
    return sorted(each for each in folder.iterdir() if each.name != "lock")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_with_equal_weights_map_one_file_and_compute_the_same(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    expected = run(layers(dtype), dtype)
    models = [layers(dtype) for _ in range(2)]
    kinds = {type(each) for each in models[0]}
    assert {PackedConv2d, PackedLinear, nn.Conv2d} <= kinds
    # In bfloat16 it depends on the CPU.
    assert WinogradConv2d in kinds or dtype == torch.bfloat16
    for model in models:
        run(model, dtype)  # 8-bit weights are packed on first use
        assert share_weights(model, tmp_path) > 300_000
        assert torch.equal(run(model, dtype), expected)
    [file] = weight_files(tmp_path)
    maps = Path("/proc/self/maps").read_text()
    assert maps.count(str(file)) == len(models)


def test_the_weights_are_in_the_file_only(tmp_path: Path) -> None:
    model = layers(torch.float32)
    run(model, torch.float32)
    share_weights(model, tmp_path)
    [file] = weight_files(tmp_path)
    with file.open("r+b") as opened:
        opened.write(bytes(file.stat().st_size))
    # What remains: the biases.
    assert run(nn.Sequential(*model[:2]), torch.float32).abs().max() < 0.1


def test_a_damaged_file_is_written_again(tmp_path: Path) -> None:
    expected = run(layers(torch.float32), torch.float32)
    share_weights(layers(torch.float32), tmp_path)
    [file] = weight_files(tmp_path)
    content = file.read_bytes()
    damaged = tmp_path / "damaged"
    damaged.write_bytes(content[:-1000] + bytes(1000))
    damaged.replace(file)
    model = layers(torch.float32)
    assert share_weights(model, tmp_path)
    assert file.read_bytes() == content
    assert torch.equal(run(model, torch.float32), expected)


def test_files_that_no_process_uses_are_removed(tmp_path: Path) -> None:
    share_weights(layers(torch.float32), tmp_path)
    [used] = weight_files(tmp_path)
    for unused in ("0" * 64, "0" * 64 + ".partial"):
        (used.parent / unused).write_bytes(b"0")
    share_weights(layers(torch.bfloat16), tmp_path)
    files = weight_files(tmp_path)
    assert used in files
    assert len(files) == 2


def test_a_folder_that_other_users_can_write_to_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / f"d2serve-weights-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    model = layers(torch.float32)
    before = [*model]
    with caplog.at_level(logging.WARNING):
        assert share_weights(model, tmp_path) == 0
    assert "only this user can write to" in caplog.text
    assert [*model] == before
    assert not any(folder.iterdir())


def test_a_full_disk_leaves_the_weights_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from d2serve.model import shared_weights

    monkeypatch.setattr(shared_weights, "FREE_FACTOR", 1e12)
    model = layers(torch.bfloat16)
    expected = run(model, torch.bfloat16)
    assert share_weights(model, tmp_path) == 0
    assert "free space" in caplog.text
    assert torch.equal(run(model, torch.bfloat16), expected)
