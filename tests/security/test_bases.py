"""Detectron2 configs whose bases never end."""

from pathlib import Path

import pytest

from d2serve.building.yaml_config import MAX_FILES, read_yaml_config
from d2serve.cli.main import invoke
from d2serve.errors import ConfigError
from d2serve.serving import safe_yaml as bounded_yaml

TOO_MANY = f"_BASE_ leads to more than {MAX_FILES} files"


def chain(folder: Path, files: int, times: int = 1) -> Path:
    """Files that name the previous one as their base `times` times."""
    for number in range(files):
        bases = [f"{number - 1}.yaml"] * times if number else []
        (folder / f"{number}.yaml").write_text(f"_BASE_: {bases}\nK{number}: {number}\n")
    return folder / f"{files - 1}.yaml"


def test_the_maximum_number_of_bases_is_read(tmp_path: Path) -> None:
    assert len(read_yaml_config(chain(tmp_path, MAX_FILES))) == MAX_FILES


@pytest.mark.parametrize(
    ("files", "times"), [(MAX_FILES + 1, 1), (9, 9), (2, MAX_FILES)], ids=["long", "fan", "list"]
)
def test_more_bases_are_rejected(tmp_path: Path, files: int, times: int) -> None:
    with pytest.raises(ConfigError, match=TOO_MANY):
        read_yaml_config(chain(tmp_path, files, times))


def test_the_archive_command_rejects_a_fan(tmp_path: Path) -> None:
    fan = chain(tmp_path, 9, 9)
    arguments = ["archive", "--config", str(fan), "--weights", "absent.pth", "--name", "evil"]
    with pytest.raises(ConfigError, match=TOO_MANY):
        invoke([*arguments, "--model-store", str(tmp_path)])


def test_a_circle_of_several_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "0.yaml").write_text("_BASE_: 2.yaml\n")
    for number in (1, 2):
        (tmp_path / f"{number}.yaml").write_text(f"_BASE_: [{number - 1}.yaml]\n")
    with pytest.raises(ConfigError, match=r"is circular: 2\.yaml is its own base"):
        read_yaml_config(tmp_path / "2.yaml")


def test_a_device_is_rejected_as_base(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("_BASE_: /dev/zero\n")
    with pytest.raises(ConfigError, match=r"/dev/zero cannot be read: zero is not a regular file"):
        read_yaml_config(config)


def test_a_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_yaml, "MAX_BYTES", 100)
    config = tmp_path / "config.yaml"
    config.write_text("A: " + "a" * 97)
    assert read_yaml_config(config)
    config.write_text("A: " + "a" * 98)
    with pytest.raises(ConfigError, match="larger than the limit of 100 bytes"):
        read_yaml_config(config)
