"""A network's weights inside an archive."""

from pathlib import Path

import pytest
import torch
from torch import nn

from d2serve.errors import CheckpointError
from d2serve.model.weights import load_weights, read_weights, write_weights
from tests.building.checkpoint.saving import Exploit


@pytest.mark.parametrize("mapped", [False, True])
def test_stored_weights_keep_their_values_and_memory_layout(tmp_path: Path, mapped: bool) -> None:
    model = nn.Conv2d(3, 4, 5)
    model.weight.data = model.weight.data.contiguous(memory_format=torch.channels_last)
    write_weights(tmp_path / "weights.pt", model)
    weights = read_weights(tmp_path / "weights.pt", mapped=mapped)
    assert sorted(weights) == ["bias", "weight"]
    assert torch.equal(weights["weight"], model.weight)
    assert weights["weight"].stride() == model.weight.stride()
    assert torch.equal(weights["bias"], model.state_dict()["bias"])


def test_mapped_weights_stay_in_the_file_after_loading(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    write_weights(tmp_path / "weights.pt", model)
    weights = read_weights(tmp_path / "weights.pt", mapped=True)
    load_weights(model, weights)
    assert model.weight.untyped_storage().data_ptr() == weights["weight"].data_ptr()
    mappings = Path("/proc/self/maps").read_text().splitlines()
    [mapping] = [line for line in mappings if line.endswith(str(tmp_path / "weights.pt"))]
    start, end = (int(address, 16) for address in mapping.split()[0].split("-"))
    assert start <= model.weight.data_ptr() < end


def test_the_same_weights_are_stored_as_the_same_bytes(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    for name in ("a.pt", "b.pt"):
        write_weights(tmp_path / name, model)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_stored_objects_are_rejected(tmp_path: Path) -> None:
    torch.save({"weight": Exploit(tmp_path / "trace")}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"weights\.pt"):
        read_weights(tmp_path / "weights.pt")
    assert not (tmp_path / "trace").exists()


def test_values_that_are_no_tensors_are_rejected(tmp_path: Path) -> None:
    torch.save({"weight": "heavy"}, tmp_path / "weights.pt")
    with pytest.raises(
        CheckpointError, match=r"weights\.pt: entry 'weight' is a str, expected a tensor"
    ):
        read_weights(tmp_path / "weights.pt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short"], ids=["empty", "damaged"])
@pytest.mark.parametrize("mapped", [False, True])
def test_damaged_stored_weights_are_named(tmp_path: Path, content: bytes, mapped: bool) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.pt cannot be read"):
        read_weights(tmp_path / "weights.pt", mapped=mapped)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        pytest.param({"bias": None}, "bias is missing", id="missing"),
        pytest.param({"more": torch.zeros(1)}, "more is not in the network", id="unexpected"),
        pytest.param(
            {"weight": torch.zeros(2, 4)},
            r"weight is float32\[2, 4\], expected float32\[2, 3\]",
            id="another shape",
        ),
        pytest.param(
            {"bias": torch.zeros(2, dtype=torch.float16)},
            r"bias is float16\[2\], expected float32\[2\]",
            id="another dtype",
        ),
        pytest.param({"weight": None, "bias": None}, r"\(and 1 more\)", id="several"),
    ],
)
def test_weights_of_another_network_are_rejected_in_one_line(
    changes: dict[str, torch.Tensor | None], named: str
) -> None:
    weights = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)} | changes
    kept = {name: tensor for name, tensor in weights.items() if tensor is not None}
    with pytest.raises(CheckpointError, match=named) as raised:
        load_weights(nn.Linear(3, 2), kept)
    assert str(raised.value).startswith("the weights do not match the network: ")
    assert "\n" not in str(raised.value)
