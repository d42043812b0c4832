"""Read the YAML of Detectron2's LazyConfig without running it."""

from pathlib import Path
from typing import Any

import pytest

from d2serve.building.lazy_yaml import is_lazy_config, read_lazy_config, resolve
from d2serve.errors import ConfigError
from tests.goldens.cases import CONFIGS


def read(tmp_path: Path, text: str) -> Any:
    config = tmp_path / "config.yaml"
    config.write_text(text, encoding="utf-8")
    return read_lazy_config(config)


PARTIAL = """
norm: !!python/object/apply:functools.partial
  args: [&id001 !!python/name:torch.nn.modules.normalization.LayerNorm '']
  state: !!python/tuple
  - *id001
  - !!python/tuple [%s]
  - {eps: 1.0e-06}
  - null
"""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("a: !!python/tuple [1, [2]]", [1, [2]], id="tuple"),
        pytest.param("a: !!python/name:torch.nn.GELU ''", "torch.nn.GELU", id="name"),
        pytest.param("a: !!python/name:None.%3Clambda%3E ''", "None.<lambda>", id="lambda"),
        pytest.param("a: !!python/object:x.Shape {height: 7}", {"height": 7}, id="object"),
        pytest.param(
            "a: !!python/object/new:x.Shape [7]", "python/object/new:x.Shape", id="new object"
        ),
        pytest.param("a: 1e-3", "1e-3", id="a text, as YAML has it"),
    ],
)
def test_pythons_objects_are_named(tmp_path: Path, text: str, value: Any) -> None:
    assert read(tmp_path, text) == {"a": value}


def test_a_partial_is_a_call_with_its_keywords(tmp_path: Path) -> None:
    expected = {"_target_": "torch.nn.modules.normalization.LayerNorm", "eps": 1e-6}
    assert read(tmp_path, PARTIAL % "") == {"norm": expected}


def test_a_partial_with_positions_stays_a_name(tmp_path: Path) -> None:
    assert read(tmp_path, PARTIAL % "7") == {"norm": "python/object/apply:functools.partial"}


@pytest.mark.parametrize(
    "call",
    [
        "object/apply:os.mkdir [%s]",
        "object/apply:os.mkdir {args: [%s]}",
        "object/new:os.mkdir [%s]",
    ],
)
def test_nothing_is_run(tmp_path: Path, call: str) -> None:
    made = tmp_path / "made"
    tag = call.partition(" ")[0]
    assert read(tmp_path, f"a: !!python/{call % made}") == {"a": f"python/{tag}"}
    assert not made.exists()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: [1", "not YAML of a lazy config"),
        ("a: !mine 1", "!mine"),
        ("- 1", "expected a YAML mapping"),
    ],
)
def test_unreadable_configs_are_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read(tmp_path, text)


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        read_lazy_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "is_lazy"),
    [
        ("model: {}", True),
        ("train: 1\nmodel: !!python/name:x.y ''", True),
        ("MODEL: {}", False),
        ("- model", False),
        ("model: [", False),
    ],
)
def test_lazy_configs_are_detected_by_their_model(tmp_path: Path, text: str, is_lazy: bool) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    assert is_lazy_config(config) is is_lazy


def test_configs_of_keys_are_not_lazy() -> None:
    assert is_lazy_config(CONFIGS / "mask_rcnn_vitdet.yaml")
    assert not is_lazy_config(CONFIGS / "mask_rcnn_r50.yaml")
    assert not is_lazy_config(CONFIGS / "nowhere.yaml")


@pytest.mark.parametrize(
    ("config", "resolved"),
    [
        pytest.param({"a": {"b": "${.c}", "c": 1}}, {"a": {"b": 1, "c": 1}}, id="beside"),
        pytest.param({"a": {"b": "${..c}"}, "c": 1}, {"a": {"b": 1}, "c": 1}, id="above"),
        pytest.param(
            {"a": {"b": [{"c": "${...d}"}], "d": 1}},
            {"a": {"b": [{"c": 1}], "d": 1}},
            id="a list is a step too",
        ),
        pytest.param({"a": "${b.c}", "b": {"c": 1}}, {"a": 1, "b": {"c": 1}}, id="from the top"),
        pytest.param({"a": "${b.1}", "b": [1, 2]}, {"a": 2, "b": [1, 2]}, id="into a list"),
        pytest.param(
            {"a": {"x": "${..b.y}"}, "b": {"y": "${.z}", "z": 3}},
            {"a": {"x": 3}, "b": {"y": 3, "z": 3}},
            id="a chain, each from its own place",
        ),
        pytest.param(
            {"a": "${b}", "b": {"c": "${.d}", "d": 1}},
            {"a": {"c": 1, "d": 1}, "b": {"c": 1, "d": 1}},
            id="a whole mapping",
        ),
    ],
)
def test_references_are_followed(config: dict[str, Any], resolved: dict[str, Any]) -> None:
    assert resolve(config) == resolved


@pytest.mark.parametrize(
    "config",
    [
        {"a": "${.a}"},
        {"a": "${b}", "b": "${a}"},
        {"a": {"b": "${a}"}},
        {"a": {"b": "${c}"}, "c": {"d": "${a}"}},
        {"a": "${nowhere}"},
        {"a": "${env:HOME}"},
        {"a": "${.....b}", "c": 1},
        {"a": "x${c}", "c": 1},
        {"a": "${b.x}", "b": [1]},
    ],
)
def test_unresolved_references_stay_a_text(config: dict[str, Any]) -> None:
    assert "${" in str(resolve(config))
