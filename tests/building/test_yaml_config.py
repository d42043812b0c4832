"""Reading YAML configs with their bases."""

from pathlib import Path

import pytest

from d2serve.building.yaml_config import merge, read_yaml_config
from d2serve.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("base", "override", "merged"),
    [
        pytest.param({}, {}, {}, id="empty"),
        pytest.param({"A": 1}, {"B": 2}, {"A": 1, "B": 2}, id="apart"),
        pytest.param(
            {"A": {"B": 1, "C": 2}}, {"A": {"B": 3}}, {"A": {"B": 3, "C": 2}}, id="nested"
        ),
        pytest.param({"A": {"B": 1}}, {"A": 2}, {"A": 2}, id="value over mapping"),
    ],
)
def test_merge(base: dict[str, object], override: dict[str, object], merged: object) -> None:
    before = str(base)
    assert merge(base, override) == merged
    assert str(base) == before


def test_the_nearer_file_wins_along_a_chain_of_bases(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "A: 1\nB: 1\nC: {D: 1, E: 1}\n")
    write(tmp_path / "sub/middle.yaml", "_BASE_: ../base.yaml\nB: 2\nC: {E: 2}\n")
    top = write(tmp_path / "sub/top.yaml", "_BASE_: middle.yaml\nF: 3\n")
    assert read_yaml_config(top) == {"A": 1, "B": 2, "C": {"D": 1, "E": 2}, "F": 3}


def test_of_several_bases_the_later_wins(tmp_path: Path) -> None:
    write(tmp_path / "one.yaml", "A: 1\nB: 1\n")
    write(tmp_path / "two.yaml", "B: 2\n")
    top = write(tmp_path / "top.yaml", "_BASE_: [one.yaml, two.yaml]\n")
    assert read_yaml_config(top) == {"A": 1, "B": 2}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("A: (640, 672)", (640, 672), id="tuple"),
        pytest.param("A: '1e-3'", 1e-3, id="number in quotes"),
        pytest.param("A: None", None, id="None"),
        pytest.param("A: ROIAlignV2", "ROIAlignV2", id="plain text"),
        pytest.param("A: ''", "", id="empty text"),
        pytest.param("A: __import__('os').getcwd()", "__import__('os').getcwd()", id="code"),
    ],
)
def test_text_that_reads_as_a_literal_is_that_literal(
    tmp_path: Path, text: str, value: object
) -> None:
    assert read_yaml_config(write(tmp_path / "config.yaml", text)) == {"A": value}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param("", "mapping", id="empty"),
        pytest.param("- 1\n", "mapping", id="a list"),
        pytest.param("A: [1\n", "not plain YAML", id="broken"),
        pytest.param("A: !mine [1]", "not plain YAML", id="an unknown tag"),
        pytest.param("_BASE_: config.yaml", "circular", id="its own base"),
        pytest.param("_BASE_: missing.yaml", "missing.yaml", id="missing base"),
        pytest.param("_BASE_: https://host/base.yaml", "https://host/base.yaml", id="remote base"),
        pytest.param("_BASE_: 7", "_BASE_ is 7", id="a number as base"),
    ],
)
def test_unreadable_configs_are_named(tmp_path: Path, text: str, named: str) -> None:
    config = write(tmp_path / "config.yaml", text)
    with pytest.raises(ConfigError, match=named):
        read_yaml_config(config)


@pytest.mark.parametrize(
    "base",
    [
        "missing.yaml",
        "../missing.yaml",
        "[base.yaml, missing.yaml]",
        "~/no/such/missing.yaml",
        "~no-such-user/missing.yaml",
        '"a\\0b/missing.yaml"',
        f"{'x' * 300}/missing.yaml",
        "dangling/missing.yaml",
    ],
)
def test_a_missing_base_names_the_file_that_requests_it(tmp_path: Path, base: str) -> None:
    write(tmp_path / "base.yaml", "A: 1\n")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    middle = write(tmp_path / "middle.yaml", f"_BASE_: {base}\n")
    top = write(tmp_path / "top.yaml", "_BASE_: middle.yaml\n")
    with pytest.raises(ConfigError, match=r"missing\.yaml.* does not exist") as raised:
        read_yaml_config(top)
    assert f"config {middle}: _BASE_ is " in str(raised.value)


def test_a_folder_as_base_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=r"folder cannot be read: .*not a regular file"):
        read_yaml_config(write(tmp_path / "top.yaml", "_BASE_: folder\n"))


def test_a_base_is_relative_to_a_link_to_the_config(tmp_path: Path) -> None:
    """As in fvcore; caches of downloads link files to others with a hash as name."""
    stored = write(tmp_path / "blobs/1f3a", "_BASE_: base.yaml\nB: 2\n")
    write(tmp_path / "snapshot/base.yaml", "A: 1\n")
    link = tmp_path / "snapshot/config.yaml"
    link.symlink_to(stored)
    assert read_yaml_config(link) == {"A": 1, "B": 2}


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        read_yaml_config(tmp_path / "nowhere.yaml")
