"""`model.json`: round trips of model configs, and files that are rejected."""

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from d2serve.building.config import load_config
from d2serve.errors import ConfigError
from d2serve.model.config import ModelConfig
from d2serve.model.serialization import (
    decode_config,
    encode_config,
    read_model_file,
    write_model_file,
)
from tests.goldens.cases import CONFIGS, MODELS

MASK_RCNN = CONFIGS / "mask_rcnn_r50.yaml"
OLD_FILES = Path(__file__).parent / "data"


def round_trip(folder: Path, config: ModelConfig) -> ModelConfig:
    write_model_file(folder, "native", encode_config(config))
    return decode_config(read_model_file(folder, "native"))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_configs_of_all_families_come_back_equal(tmp_path: Path, model: Any) -> None:
    config = load_config(model.config)
    assert round_trip(tmp_path, config) == config


def test_numbers_keep_all_digits(tmp_path: Path) -> None:
    config = load_config(MASK_RCNN)
    changed = replace(config, input=replace(config.input, pixel_mean=(0.1 + 0.2, 1e-300, 1 / 3)))
    assert round_trip(tmp_path, changed).input.pixel_mean == (0.1 + 0.2, 1e-300, 1 / 3)


@pytest.mark.upstream
@pytest.mark.skipif(find_spec("detectron2") is None, reason="the zoo is in the detectron2 package")
def test_supported_configs_of_the_model_zoo_come_back_equal(tmp_path: Path) -> None:
    import detectron2

    folder = Path(detectron2.__file__).parent / "model_zoo" / "configs"
    supported = 0
    for path in sorted(folder.rglob("*.yaml")):
        try:
            config = load_config(path)
        except ConfigError:
            continue
        supported += 1
        assert round_trip(tmp_path, config) == config, path
    assert supported or not folder.exists()


def test_the_same_config_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = set()
    for _ in range(2):
        write_model_file(tmp_path, "native", encode_config(load_config(MASK_RCNN)))
        contents.add((tmp_path / "model.json").read_bytes())
    assert len(contents) == 1


def test_the_family_is_named_as_detectron2_names_it(tmp_path: Path) -> None:
    write_model_file(tmp_path, "native", encode_config(load_config(MASK_RCNN)))
    content = json.loads((tmp_path / "model.json").read_text())
    assert (content["format_version"], content["runtime"]) == (1, "native")
    assert content["config"]["family"]["type"] == "GeneralizedRCNN"
    assert content["config"]["backbone"]["bottom_up"]["type"] == "ResNet"


@pytest.mark.parametrize("name", ["retinanet", "mask_rcnn_c4", "mask_rcnn_vitdet"])
def test_files_of_version_0_2_0_are_read(name: str) -> None:
    content = json.loads((OLD_FILES / f"model_0.2.0_{name}.json").read_text())
    assert decode_config(content["config"]) == load_config(CONFIGS / f"{name}.yaml")


def changed(*path: str, value: Any = None, key: str | None = None) -> Callable[[Any], None]:
    """Replace the value at a path; remove it if None, or rename its key."""

    def change(content: Any) -> None:
        *parents, last = path
        for name in parents:
            content = content[name]
        if key is not None:
            content[key] = content.pop(last)
        elif value is None:
            del content[last]
        else:
            content[last] = value

    return change


RESNET = ("config", "backbone", "bottom_up")
HEADS = ("config", "family", "roi_heads")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            changed("format_version", value=2),
            "format_version is 2, this d2serve reads 1; build the archive again",
        ),
        (changed("format_version"), "format_version is None"),
        (changed("runtime"), "key runtime is missing"),
        (changed("config", value=[]), r"config is \[\], expected an object"),
        (changed("more", value=1), "key more is unknown"),
        (changed("config", "input"), r"key config\.input is missing"),
        (
            changed(*RESNET, "depth", value="50"),
            r"config\.backbone\.bottom_up\.depth is '50', exp.* an int",
        ),
        (changed(*RESNET, "depth", value=50.0), r"bottom_up\.depth is 50\.0, expected an integer"),
        (changed(*RESNET, "depth", value=True), r"bottom_up\.depth is True, expected an integer"),
        (changed(*RESNET, "stride_in_1x1", value=1), "stride_in_1x1 is 1, expected true or false"),
        (changed(*RESNET, "norm", value=0), "norm is 0, expected a string"),
        (changed(*RESNET, "deform", value="none"), r"deform is 'none', expected a list"),
        (changed(*RESNET, "deform", value=[1]), r"deform\[0\] is 1, expected an object"),
        (
            changed(*RESNET, "depth", key="layers"),
            r"key config\.backbone\.bottom_up\.layers is unknown",
        ),
        (changed("config", "family", "type", value="DETR"), r"family\.type is 'DETR', expected '"),
        (
            changed("config", "family", "type"),
            r"family\.type is None, expected 'ProposalNetwork' or",
        ),
        (changed("config", "backbone", value=7), r"config\.backbone is 7, expected an object"),
        (
            changed(*HEADS, "selection", "score_threshold", value="high"),
            r"score_threshold is 'high', expected a number",
        ),
        (
            changed(*HEADS, "selection", "score_threshold", value=float("nan")),
            r"score_threshold is nan, expected a number",
        ),
    ],
)
def test_a_damaged_file_is_rejected_with_the_field(
    tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    write_model_file(tmp_path, "native", encode_config(load_config(MASK_RCNN)))
    file = tmp_path / "model.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=rf"^model\.json: .*{message}") as raised:
        decode_config(read_model_file(tmp_path, "native"))
    assert "build the archive again" in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{", b"\xff", b"[" * 100_000],
    ids=["missing", "empty", "truncated", "not UTF-8", "nested"],
)
def test_a_file_that_is_no_json_is_rejected(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(
        ConfigError,
        match=r"^model\.json (cannot be read|does not exist): .*build the archive again",
    ):
        read_model_file(tmp_path, "native")


def test_a_file_for_another_runtime_is_rejected(tmp_path: Path) -> None:
    write_model_file(tmp_path, "detectron2", {"format": "keyed"})
    message = r"runtime is 'detectron2', the setting `runtime` is 'native'; remove the setting"
    with pytest.raises(ConfigError, match=message):
        read_model_file(tmp_path, "native")


def test_values_that_json_cannot_represent_are_not_written(tmp_path: Path) -> None:
    config = load_config(MASK_RCNN)
    # The config's readers reject such values earlier.
    infinite = replace(config, input=replace(config.input, pixel_mean=(float("inf"), 0.0, 0.0)))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_model_file(tmp_path, "native", encode_config(infinite))
