"""Python tags in configs are read as data, and nothing is run."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from d2serve.building.config import load_config
from d2serve.building.package_config import for_package
from d2serve.building.packing import write_yaml
from d2serve.building.python_tags import ConfigLoader, Opaque, as_text, find_opaque
from d2serve.building.yaml_config import read_yaml_config
from d2serve.errors import ConfigError
from tests.goldens.cases import CONFIGS

CFG_NODE = "!!python/object/new:detectron2.config.config.CfgNode"
# What `yaml.dump(cfg)` writes for each section.
STATE = """
state:
  __deprecated_keys__: !!set {}
  __immutable__: false
  __new_allowed__: false
  __renamed_keys__: {}
"""
# Expressions of published configs: Panoptic-DeepLab and Mask2Former.
TRAIN_SIZES = "[int(x * 0.1 * 640) for x in range(5, 16)]"


def load(text: str) -> Any:
    return yaml.load(text, ConfigLoader)


def dump(node: dict[str, Any], class_name: str = "detectron2.config.config.CfgNode") -> str:
    """Return the text that `yaml.dump` writes for nested CfgNodes."""

    class CfgNode(dict):  # type: ignore[type-arg]
        """A mapping with a state of its own, as yacs's."""

    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        section = CfgNode({key: convert(item) for key, item in value.items()})
        section.__dict__["__immutable__"] = False
        section.__dict__["__deprecated_keys__"] = set()
        return section

    def represent(dumper: yaml.Dumper, section: CfgNode) -> yaml.Node:
        parts = {"dictitems": dict(section), "state": section.__dict__}
        return dumper.represent_mapping(
            f"tag:yaml.org,2002:python/object/new:{class_name}",
            {key: part for key, part in parts.items() if part},
        )

    class Dumper(yaml.Dumper):
        """A dumper that names the class as the original's module does."""

    Dumper.add_representer(CfgNode, represent)
    return yaml.dump(convert(node), Dumper=Dumper)


@pytest.mark.parametrize(
    "class_name",
    ["detectron2.config.config.CfgNode", "fvcore.common.config.CfgNode", "yacs.config.CfgNode"],
)
def test_a_dumped_config_is_the_config(tmp_path: Path, class_name: str) -> None:
    original = read_yaml_config(CONFIGS / "mask_rcnn_r50.yaml")
    dumped = tmp_path / "config.yaml"
    dumped.write_text(dump(original, class_name))
    assert f"!!python/object/new:{class_name}" in dumped.read_text()
    assert read_yaml_config(dumped) == original
    assert load_config(dumped) == load_config(CONFIGS / "mask_rcnn_r50.yaml")


def test_the_text_that_detectron2_dumps_is_read() -> None:
    indented = STATE.replace("\n", "\n    ")
    text = f"""{CFG_NODE}
dictitems:
  DATASETS: {CFG_NODE}
    dictitems:
      TEST: &id001 !!python/tuple []
      TRAIN: *id001
{indented}
  EMPTY: {CFG_NODE}
{indented}
{STATE}"""
    assert load(text) == {"DATASETS": {"TEST": (), "TRAIN": ()}, "EMPTY": {}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("!!python/tuple [1, [2], !!python/tuple [3]]", (1, [2], (3,))),
        ("!!python/list [1]", [1]),
        ("!!python/dict {a: 1}", {"a": 1}),
        ("!!python/str 'a'", "a"),
        ("!!python/unicode 'a'", "a"),
        ("!!python/long '12'", 12),
        ("!!python/int '1'", 1),
        ("!!python/float '0.5'", 0.5),
        ("!!python/bool 'true'", True),
        ("!!python/none ''", None),
        ("!!python/object/new:easydict.EasyDict {dictitems: {a: 1}, state: {a: 1}}", {"a": 1}),
        ("!!python/object/new:mine.List {listitems: [1, 2]}", [1, 2]),
        ("!!python/object/apply:collections.OrderedDict [[[a, 1], [b, 2]]]", {"a": 1, "b": 2}),
        ("!!python/object/apply:collections.OrderedDict []", {}),
        ('!!python/object/apply:eval ["[x * 2 for x in [1, 2]]"]', [2, 4]),
    ],
)
def test_containers_and_plain_values_are_data(text: str, value: object) -> None:
    found = load(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        '!!python/object/apply:eval ["range(5, 21)"]',
        '!!python/object/apply:numpy.core.multiarray.scalar [1, "x"]',
        "!!python/object:argparse.Namespace {a: 1}",
        "!!python/object/new:mine.Thing {args: [1], dictitems: {a: 1}}",
        "!!python/object/new:mine.Thing [1]",
        "!!python/name:torch.nn.BatchNorm2d ''",
        "!!python/module:os ''",
        "!!python/complex '1j'",
        "!!python/tuple {a: 1}",
        "!!python/object/apply:collections.OrderedDict [[1, 2]]",
    ],
)
def test_other_tags_are_opaque(text: str) -> None:
    value = load(f"[{{a: {text}}}]")
    opaque = find_opaque(value)
    assert isinstance(opaque, Opaque)
    assert opaque.text.startswith(text.split()[0])
    assert as_text(value) == [{"a": opaque.text}]


def test_long_values_are_shortened_in_messages() -> None:
    shown = repr(load(f"!!python/object/apply:eval ['{'f(x) + ' * 100}1']"))
    assert len(shown) < 100
    assert shown.endswith("...")


@pytest.mark.parametrize(
    "value",
    [
        f'!!python/object/apply:eval ["{TRAIN_SIZES}"]',
        '!!python/object/apply:eval ["range(5, 21)"]',
        "!!python/tuple [480, 512]",
        "!!python/name:mine.sizes ''",
    ],
)
@pytest.mark.parametrize("key", ["INPUT.MIN_SIZE_TRAIN", "SOLVER.STEPS", "DATASETS.TRAIN"])
def test_values_that_only_training_reads_may_be_code(tmp_path: Path, key: str, value: str) -> None:
    config = tmp_path / "config.yaml"
    section, name = key.split(".")
    base = CONFIGS / "mask_rcnn_r50.yaml"
    config.write_text(f"_BASE_: {base}\n{section}:\n  {name}: {value}\n")
    assert load_config(config) == load_config(base)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.MIN_SIZE_TEST", '!!python/object/apply:eval ["max(range(5, 21))"]'),
        ("MODEL.RESNETS.NORM", "!!python/name:torch.nn.BatchNorm2d ''"),
        ("MODEL.PIXEL_MEAN", '[1, 2, !!python/object/apply:eval ["len([1])"]]'),
    ],
)
def test_values_that_inference_reads_must_be_data(tmp_path: Path, key: str, value: str) -> None:
    config = tmp_path / "config.yaml"
    *sections, name = key.split(".")
    nested = f"{name}: {value}"
    for section in reversed(sections):
        nested = f"{section}: {{{nested}}}"
    config.write_text(f"_BASE_: {CONFIGS / 'mask_rcnn_r50.yaml'}\n{nested}\n")
    with pytest.raises(ConfigError, match=rf"{key}: .*!!python/(object/apply:eval|name)"):
        load_config(config)
    with pytest.raises(ConfigError, match=rf"{key}: .*Python expressions are not run"):
        for_package(read_yaml_config(config))


def test_the_package_gets_plain_data(tmp_path: Path) -> None:
    """The package's own reader would run the code."""
    config = tmp_path / "config.yaml"
    config.write_text(
        f'INPUT: {{FORMAT: RGB, MIN_SIZE_TRAIN: !!python/object/apply:eval ["{TRAIN_SIZES}"]}}\n'
        "SOLVER: {MINE: 1}\nMODEL: {PIXEL_STD: !!python/tuple [1, 2, 3]}\n"
    )
    plain = for_package(read_yaml_config(config))
    assert plain == {"INPUT": {"FORMAT": "RGB"}, "MODEL": {"PIXEL_STD": [1, 2, 3]}}
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain


def test_odd_values_of_training_keys_reach_the_archive_as_plain_data(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "SOLVER:\n"
        "  A: [{? !!python/tuple [1, 2] : 1, ? !!python/name:mine.x '' : 2, 2026-01-01: 3}]\n"
        "  B: !!set {a, !!python/name:mine.y ''}\n"
        "  C: 2026-11-28\n"
        "  D: !!binary aGVsbG8=\n"
        "  E: !!python/tuple [!!python/tuple [1], !!python/object/apply:eval ['f()']]\n"
    )
    target = tmp_path / "plain.yaml"
    write_yaml(target, as_text(read_yaml_config(config)))
    plain = yaml.safe_load(target.read_text())["SOLVER"]
    assert list(plain["A"][0].values()) == [1, 2, 3]
    assert sorted(plain["B"]) == ["!!python/name:mine.y", "a"]
    assert plain["E"] == [[1], "!!python/object/apply:eval ['f()']"]
