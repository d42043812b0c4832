"""Weights that are not finite are rejected by name, for every runtime."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from d2serve.building.archive import build_archive
from d2serve.building.checkpoint import read_checkpoint
from d2serve.building.runtimes import DETECTRON2, NATIVE, write_model_folder
from d2serve.building.weight_values import check_values
from d2serve.errors import CheckpointError
from tests.building.checkpoint.saving import save

SHAPES = Path("models/shapes")
NAN, INFINITY = float("nan"), float("inf")
KERNEL = "backbone.bottom_up.stem.conv1.weight"


def changed(name: str, value: float) -> dict[str, Tensor]:
    """The bundled model's weights with another first value of one tensor."""
    weights = read_checkpoint(SHAPES / "model_final.pth")
    tensor = weights[name].clone()
    tensor.view(-1)[0] = value
    return {**weights, name: tensor}


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_an_archive_is_not_built(tmp_path: Path, suffix: str, value: float) -> None:
    weights: dict[str, object] = {**changed(KERNEL, value)}
    if suffix == ".pkl":
        weights = {name: np.asarray(tensor) for name, tensor in weights.items()}
    path = save(tmp_path / f"model{suffix}", {"model": weights})
    with pytest.raises(CheckpointError) as raised:
        build_archive(SHAPES / "config.yaml", path, tmp_path / "shapes.mar")
    summary, *named = str(raised.value).splitlines()
    assert "training diverged, so use an earlier checkpoint" in summary
    kind = "NaN" if np.isnan(value) else "infinity"
    assert named == [f"  {KERNEL}: {kind} in 1 of {changed(KERNEL, 0)[KERNEL].numel()} values"]
    assert not (tmp_path / "shapes.mar").exists()


@pytest.mark.parametrize("runtime", [NATIVE, DETECTRON2])
def test_every_runtime_rejects_them(tmp_path: Path, runtime: str) -> None:
    with pytest.raises(CheckpointError, match=rf"{KERNEL}: NaN in 1 of"):
        write_model_folder(tmp_path, SHAPES / "config.yaml", changed(KERNEL, NAN), runtime)


@pytest.mark.parametrize(
    ("name", "tensor", "problem"),
    [
        ("a.weight", torch.tensor([1, NAN, INFINITY]), "NaN in 1 and infinity in 1 of 3 values"),
        ("a.bias", torch.tensor([[NAN, NAN], [0, -INFINITY]]), "NaN in 2 and infinity in 1 of 4"),
        ("half", torch.tensor([INFINITY]).half(), "infinity in 1 of 1"),
        ("bfloat16", torch.tensor([NAN]).bfloat16(), "NaN in 1 of 1"),
        ("too large for float32", torch.tensor([1e300]).double(), "infinity in 1 of 1"),
        ("norm.running_var", torch.tensor([1.0, -1e-3]), "negative variance in 1 of 2"),
        ("norm.running_var", torch.tensor([NAN, -1.0]), "NaN in 1 and negative variance in 1"),
    ],
)
def test_the_problem_is_named(name: str, tensor: Tensor, problem: str) -> None:
    with pytest.raises(CheckpointError, match=rf"1 of 2 tensors.*\n  {name}: {problem}"):
        check_values({name: tensor, "other": torch.ones(2)})


def test_no_more_than_twenty_are_listed() -> None:
    with pytest.raises(CheckpointError, match=r"in 25 of 25 tensors") as raised:
        check_values({f"layer{index}": torch.tensor(NAN) for index in range(25)})
    lines = str(raised.value).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  ... and 5 more"


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("large", torch.full((100,), 3e38)),
        ("both signs", torch.tensor([3e38, -3e38])),
        ("empty", torch.empty(0)),
        ("integers", torch.tensor([2**31])),
        ("norm.running_mean", torch.tensor([-1.0])),
        ("norm.running_var", torch.tensor([0.0])),
        ("pixel_std", torch.tensor([NAN])),
    ],
)
def test_finite_values_and_those_that_inference_does_not_use_pass(
    name: str, tensor: Tensor
) -> None:
    check_values({name: tensor})
