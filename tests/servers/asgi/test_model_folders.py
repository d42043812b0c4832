"""Find the archives of a server in folders, and name their models."""

from pathlib import Path

import pytest

from d2serve.errors import ArchiveError, CommandError
from d2serve.servers.asgi.model_folders import find_archive, unpack_models
from d2serve.serving.archive_files import unpack_archive


@pytest.mark.parametrize("file", ["shapes.mar", "shapes.tar.gz"])
def test_a_folder_may_contain_one_archive(file: str, tmp_path: Path) -> None:
    (tmp_path / file).touch()
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "README.md").touch()
    assert find_archive(tmp_path) == tmp_path / file


def test_a_folder_may_contain_an_unpacked_archive(shapes_mar: Path, tmp_path: Path) -> None:
    unpack_archive(shapes_mar, tmp_path / "shapes")
    assert find_archive(tmp_path) == tmp_path / "shapes"
    assert find_archive(tmp_path / "shapes") == tmp_path / "shapes"


def test_a_damaged_archive_is_not_searched(tmp_path: Path) -> None:
    (tmp_path / "MAR-INF").mkdir()
    (tmp_path / "other.mar").touch()
    assert find_archive(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"contains no archive \(its content: none\), expected one .mar archive"),
        (["weights.pth"], r"\(its content: weights.pth\), .*d2serve archive"),
        (["a.mar", "b.tar.gz"], r"contains 2 archives \(a.mar, b.tar.gz\), .* the path of one"),
        ([f"{i:02}.pth" for i in range(12)], r"09.pth, 2 more\), expected"),
    ],
)
def test_other_folders_are_errors(files: list[str], message: str, tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).touch()
    with pytest.raises(ArchiveError, match=message):
        find_archive(tmp_path)


def test_a_model_may_have_a_name_of_its_own(shapes_mar: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert unpack_models([shapes_mar], home, "my-model") == {"my-model": str(home / "my-model")}


@pytest.mark.parametrize(
    ("count", "name", "message"),
    [(2, "a", "--name a was given with 2 models"), (1, "a/b", "'a/b' is not the name of a model")],
)
def test_names_that_are_not_valid(count: int, name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=message):
        unpack_models([tmp_path / "shapes.mar"] * count, tmp_path, name)
