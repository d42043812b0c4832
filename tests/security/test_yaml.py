"""YAML that runs code, and YAML that grows: in configs, in settings, in class files."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from d2serve.building.arithmetic import evaluate
from d2serve.building.config import load_config
from d2serve.building.lazy_yaml import read_lazy_config, resolve
from d2serve.building.yaml_config import read_yaml_config
from d2serve.cli.main import invoke
from d2serve.errors import ClassNamesError, ConfigError, SettingsError
from d2serve.metadata import read_class_names
from d2serve.servers.torchserve.workers import read_workers
from d2serve.serving import safe_yaml as bounded_yaml
from d2serve.serving.model_config import read_settings
from d2serve.serving.safe_yaml import load_yaml

REFUSALS = (ConfigError, SettingsError, ClassNamesError)
# What the config reader accepts is data; the archive's reader rejects it where it is read.
TAG_READERS: dict[str, Callable[[Path], Any]] = {
    "archive's config": load_config,
    "settings": read_settings,
    "workers": read_workers,
    "classes": read_class_names,
}
READERS = {"config": read_yaml_config, **TAG_READERS}
MEMORY_BYTES = 200_000_000


def tags(trace: Path) -> dict[str, str]:
    """Each runs `touch` when PyYAML's unsafe loader reads it."""
    command = f"touch '{trace}'"
    return {
        "apply": f'MODEL: !!python/object/apply:os.system ["{command}"]',
        "eval": f"MODEL: !!python/object/apply:eval\n- __import__('os').system(\"{command}\")",
        "new": f'MODEL: !!python/object/new:os.system ["{command}"]',
        "as a key": f'? !!python/object/apply:os.system ["{command}"]\n: 1',
        "map": f"MODEL: !!python/object/new:type\n  args: [z, !!python/tuple [], "
        f'{{"extend": !!python/name:exec }}]\n  listitems: "import os; os.system(\\"{command}\\")"',
    }


@pytest.mark.parametrize("tag", tags(Path()))
@pytest.mark.parametrize("reader", TAG_READERS)
def test_tags_run_nothing(tmp_path: Path, reader: str, tag: str) -> None:
    trace = tmp_path / "it-ran"
    text = tags(trace)[tag]
    yaml.unsafe_load(text)
    assert trace.exists(), "the payload does not run"
    trace.unlink()
    file = tmp_path / "file.yaml"
    file.write_text(text)
    with pytest.raises(REFUSALS):
        READERS[reader](file)
    assert not trace.exists()


@pytest.mark.parametrize("tag", tags(Path()))
def test_tags_run_nothing_in_make_archive(tmp_path: Path, tag: str) -> None:
    trace = tmp_path / "it-ran"
    config = tmp_path / "config.yaml"
    config.write_text(tags(trace)[tag])
    arguments = ["archive", "--config", str(config), "--weights", "absent.pth", "--name", "evil"]
    with pytest.raises(ConfigError, match=r"this config is not supported: .*!!python/object/"):
        invoke([*arguments, "--model-store", str(tmp_path)])
    assert not trace.exists()


@pytest.mark.parametrize("tag", tags(Path()))
def test_tags_of_configs_are_read_as_data(tmp_path: Path, tag: str) -> None:
    trace = tmp_path / "it-ran"
    config = tmp_path / "config.yaml"
    config.write_text(tags(trace)[tag])
    [item] = read_yaml_config(config).items()
    assert any("!!python/object/" in str(part) for part in item)
    assert not trace.exists()


@pytest.mark.parametrize("tag", tags(Path()))
def test_tags_of_lazy_configs_are_read_as_names(tmp_path: Path, tag: str) -> None:
    trace = tmp_path / "it-ran"
    config = tmp_path / "config.yaml"
    config.write_text(f"model: {{}}\n{tags(trace)[tag]}")
    yaml.unsafe_load(config.read_text())
    assert trace.exists(), "the payload does not run"
    trace.unlink()
    read_lazy_config(config)
    assert not trace.exists()


def laughs(levels: int = 12, kind: str = "mapping") -> str:
    """Each level contains the previous one nine times."""
    lines = ["L0: &l0 {x: 1, y: 2}"]
    for level in range(1, levels):
        below = [f"*l{level - 1}"] * 9
        inner = {
            "mapping": "{" + ", ".join(f"k{i}: {name}" for i, name in enumerate(below)) + "}",
            "list": f"[{', '.join(below)}]",
            "merge": f"{{<<: [{', '.join(below)}], z{level}: 1}}",
        }[kind]
        lines.append(f"L{level}: &l{level} {inner}")
    return "\n".join(lines)


def written_out(node: Any) -> int:
    """The number of values with aliases expanded."""
    sizes: dict[int, int] = {}

    def size(value: Any) -> int:
        if not isinstance(value, (dict, list)):
            return 1
        if id(value) not in sizes:
            children = value.values() if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(map(size, children))
        return sizes[id(value)]

    return size(node)


@pytest.mark.parametrize("kind", ["mapping", "list"])
def test_laughs_would_be_billions(kind: str) -> None:
    text = laughs(kind=kind)
    assert len(text) < 2000
    assert written_out(yaml.safe_load(text)) > 10**9


def test_merged_laughs_would_be_many() -> None:
    """PyYAML expands them, ninefold with each level."""
    shorter, longer = (yaml.compose(laughs(levels, "merge"), yaml.SafeLoader) for levels in (4, 5))
    counts = []
    for root in (shorter, longer):
        loader = yaml.SafeLoader("")
        loader.construct_document(root)
        assert isinstance(root, yaml.MappingNode)
        counts.append(len(root.value[-1][1].value))
    assert counts[1] > 8 * counts[0]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["mapping", "list", "merge"])
def test_laughs_are_rejected_before_they_grow(tmp_path: Path, reader: str, kind: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(laughs(kind=kind))
    tracemalloc.start()
    try:
        with pytest.raises(REFUSALS) as raised:
            READERS[reader](file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_BYTES
    if reader != "classes":  # JSON knows no aliases
        assert f"more than {bounded_yaml.MAX_VALUES} values" in str(raised.value)


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_a_little_repetition_is_fine(levels: int) -> None:
    text = laughs(levels)
    assert load_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 5000, "more than 100 levels deep"),
        ("a: " + "{a: " * 5000, "more than 100 levels deep"),
        ("- " * 5000 + "a", "more than 100 levels deep"),
        ("a: &a {b: *a}", "it contains itself"),
        ("a: &a [[*a]]", "it contains itself"),
        (
            "a0: &a0 [1]\n"
            + "\n".join(f"a{i}: &a{i} {'[' * 60}*a{i - 1}{']' * 60}" for i in range(1, 30)),
            "more than 100 levels deep",
        ),
    ],
    ids=["lists", "mappings", "blocks", "itself", "itself-in-lists", "by-aliases"],
)
@pytest.mark.parametrize("reader", [read_yaml_config, read_lazy_config, read_settings])
def test_depth_is_rejected(
    tmp_path: Path, reader: Callable[[Path], Any], text: str, message: str
) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    with pytest.raises((ConfigError, SettingsError), match=message):
        reader(file)


def test_as_deep_as_allowed_is_read() -> None:
    deepest = bounded_yaml.MAX_NESTING
    assert load_yaml("[" * deepest + "]" * deepest) is not None
    with pytest.raises(yaml.YAMLError):
        load_yaml("[" * (deepest + 1) + "]" * (deepest + 1))


@pytest.mark.parametrize("text", ["a: 2001-13-99", "a: !!int abc", "a: !!timestamp x"])
def test_invalid_values_are_rejected(tmp_path: Path, text: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    for reader in (read_yaml_config, read_lazy_config, read_settings):
        with pytest.raises((ConfigError, SettingsError), match=r"file\.yaml is not"):
            reader(file)


def comprehensions(levels: int) -> str:
    text = "1"
    for _ in range(levels):
        text = f"[{text} for x in [1,1,1,1,1,1,1,1,1,1]]"
    return text


def test_expressions_that_multiply_are_rejected() -> None:
    assert evaluate(comprehensions(2)) == [[1] * 10] * 10
    assert len(comprehensions(25)) < 1000
    with pytest.raises(ValueError, match="more than 10000 steps"):
        evaluate(comprehensions(25))


def test_interpolations_that_multiply_are_rejected() -> None:
    config: dict[str, Any] = {"r0": {"x": 1}}
    for level in range(1, 30):
        config[f"r{level}"] = dict.fromkeys(("a", "b"), f"${{r{level - 1}}}")
    with pytest.raises(ConfigError, match="more than 100000 values"):
        resolve(config)
    assert resolve({"a": {"x": 1}, "b": "${a}", "c": "${b}"})["c"] == {"x": 1}


def test_deep_interpolations_are_rejected() -> None:
    config: dict[str, Any] = {"r0": 1}
    config |= {f"r{level}": {"a": f"${{r{level - 1}}}"} for level in range(1, 2000)}
    with pytest.raises(ConfigError, match=r"too deep|more than"):
        resolve(config)
