"""Extract the parts of lazy configs that serving needs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from d2serve.building import lazy_config
from d2serve.building.config import parse_config
from d2serve.building.lazy_config import as_yaml, read_saved_config
from d2serve.errors import ConfigError, RuntimeUnavailableError
from tests.goldens.cases import CONFIGS

# As training on LVIS left it in its output folder.
SAVED = Path(__file__).parent / "data" / "saved_by_lazy_config.yaml"
RESIZE = "detectron2.data.transforms.ResizeShortestEdge"


def saved(tmp_path: Path, config: dict[str, Any]) -> dict[str, Any]:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"model": {}, **config}))
    return read_saved_config(path)


def resized_by(*augmentations: dict[str, Any]) -> dict[str, Any]:
    return {"dataloader": {"test": {"mapper": {"augmentations": list(augmentations)}}}}


def test_a_config_saved_by_training_is_read_without_the_package() -> None:
    kept = read_saved_config(SAVED)
    assert kept["input"] == {"channel_order": "RGB", "min_size": 1024, "max_size": 1024}
    assert kept["datasets"] == {"TEST": "lvis_v1_val", "TRAIN": "lvis_v1_train"}
    assert kept.keys() == {"model", "input", "datasets"}
    assert parse_config(kept).output.num_classes == 1203


def test_an_extracted_config_is_kept() -> None:
    kept = read_saved_config(CONFIGS / "mask_rcnn_vitdet.yaml")
    assert kept["input"] == {"channel_order": "RGB", "min_size": 256, "max_size": 256}


@pytest.mark.parametrize(
    ("config", "order", "sizes"),
    [
        ({}, "BGR", (800, 1333)),
        ({"model": {"input_format": "RGB"}}, "RGB", (800, 1333)),
        (resized_by({"_target_": RESIZE, "short_edge_length": 64}), "BGR", (64, 2**31 - 1)),
        (
            resized_by({"_target_": RESIZE, "short_edge_length": [64, 64], "max_size": 70}),
            "BGR",
            (64, 70),
        ),
    ],
)
def test_images_are_resized_as_the_config_tests(
    tmp_path: Path, config: dict[str, Any], order: str, sizes: tuple[int, int]
) -> None:
    expected = {"channel_order": order, "min_size": sizes[0], "max_size": sizes[1]}
    assert saved(tmp_path, config)["input"] == expected


def test_other_resizing_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"augmentations: Resize \(supported: only Res"):
        saved(tmp_path, resized_by({"_target_": "detectron2.data.transforms.Resize"}))


def test_a_yaml_config_is_unchanged(tmp_path: Path) -> None:
    with as_yaml(tmp_path / "config.yaml") as config:
        assert config == tmp_path / "config.yaml"


def test_a_python_config_is_run_and_its_yaml_is_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def save(source: Path, target: Path) -> None:
        target.write_text(source.read_text())

    monkeypatch.setattr(lazy_config, "package_version", lambda: "0.6")
    monkeypatch.setattr(lazy_config, "save_lazy_config", save)
    source = tmp_path / "config.py"
    source.write_text("model = 1")
    with as_yaml(source) as config:
        assert config.suffix == ".yaml"
        assert config.read_text() == "model = 1"
    assert not config.exists()


def test_without_the_package_a_python_config_is_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing() -> str:
        raise RuntimeUnavailableError("no such package; pip install it")

    monkeypatch.setattr(lazy_config, "package_version", missing)
    source = tmp_path / "config.py"
    source.write_text("raise RuntimeError('this must not run')")
    with pytest.raises(ConfigError, match=r"use the config\.yaml .* pip install it"):
        as_yaml(source).__enter__()
    with pytest.raises(ConfigError, match=r"nowhere\.py does not exist"):
        as_yaml(tmp_path / "nowhere.py").__enter__()
