"""Packages: what is in them, that they can be built again, and what is refused."""

import gzip
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import BinaryIO

import pytest
import yaml

from d2serve.building.archive import SERVING_DEFAULTS, build_archive
from d2serve.building.package import build_package, main, package_path, read_package
from d2serve.errors import CommandError
from d2serve.serving.integrity import IntegrityError, check_folder
from d2serve.serving.model_config import read_settings
from d2serve.settings import Settings

MANIFEST = "MAR-INF/MANIFEST.json"
SUMS = "SHA256SUMS"
OURS = '{"model": {"modelName": "a", "modelVersion": "1.0"}}'


@pytest.fixture
def archive(shapes_mar: Path, tmp_path: Path) -> Path:
    """An archive in a store that the test may write to."""
    return Path(shutil.copy(shapes_mar, tmp_path))


def content(package: Path, name: str) -> bytes:
    with tarfile.open(package) as packed:
        member = packed.extractfile(name)
        assert member
        return member.read()


def test_a_package_holds_what_the_archive_holds(archive: Path) -> None:
    package = build_package(archive).path
    with zipfile.ZipFile(archive) as source, tarfile.open(package) as packed:
        assert sorted(packed.getnames()) == sorted(source.namelist())
        for name in set(source.namelist()) - {MANIFEST, "model-config.yaml", SUMS}:
            assert content(package, name) == source.read(name)


def test_the_same_model_gives_the_same_bytes(shapes: Path, tmp_path: Path) -> None:
    """From the trained files on."""
    packages = [
        build_package(
            build_archive(
                shapes / "config.yaml",
                shapes / "model_final.pth",
                "shapes",
                tmp_path / store,
                classes=shapes / "classes.json",
            )
        )
        for store in ("first", "second")
    ]
    assert packages[0].path.read_bytes() == packages[1].path.read_bytes()
    assert packages[0].sha256 == packages[1].sha256


def test_order_and_folders_of_an_archive_do_not_matter(archive: Path) -> None:
    first = build_package(archive)
    with zipfile.ZipFile(archive) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("MAR-INF/", b"")
        for name in reversed(files):
            packed.writestr(name, files[name])
    assert build_package(archive).sha256 == first.sha256


def rewritten(archive: Path, files: dict[str, bytes | None]) -> Path:
    """The archive with files replaced, added or, where None, left out."""
    with zipfile.ZipFile(archive) as packed:
        kept = {name: packed.read(name) for name in packed.namelist()} | files
    with zipfile.ZipFile(archive, "w") as packed:
        for name, content in kept.items():
            if content is not None:
                packed.writestr(name, content)
    return archive


def test_another_model_gives_other_bytes(archive: Path) -> None:
    first = build_package(archive)
    other = rewritten(archive, {"classes.json": b'["other"]', SUMS: None})
    assert build_package(other).sha256 != first.sha256


@pytest.mark.parametrize("multi_model", [False, True])
def test_a_package_keeps_its_own_sums(archive: Path, tmp_path: Path, multi_model: bool) -> None:
    package = build_package(archive, multi_model=multi_model).path
    with tarfile.open(package) as packed:
        packed.extractall(tmp_path / "model", filter="data")
    check_folder(tmp_path / "model")
    (tmp_path / "model" / MANIFEST).write_text("{}")
    with pytest.raises(IntegrityError, match=r"changed 'MAR-INF/MANIFEST\.json'"):
        check_folder(tmp_path / "model")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        pytest.param({"handler.py": b"import os"}, "changed 'service.py'", id="changed"),
        pytest.param({"more.py": b""}, "additional 'more.py'", id="additional"),
        pytest.param({"weights.pt": None}, "missing 'weights.pt'", id="missing"),
    ],
)
def test_an_archive_whose_files_are_not_its_own_is_refused(
    archive: Path, files: dict[str, bytes | None], told: str
) -> None:
    with pytest.raises(CommandError, match=rf"shapes\.mar: the archive's files .*{told}"):
        build_package(rewritten(archive, files))


def test_an_archive_of_an_older_version_gets_sums(archive: Path) -> None:
    package = build_package(rewritten(archive, {SUMS: None})).path
    assert b"  weights.pt\n" in content(package, SUMS)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        pytest.param({MANIFEST: b"{"}, f"{MANIFEST} is none of ours", id="manifest-no-json"),
        pytest.param({MANIFEST: b'{"model": {}}'}, f"{MANIFEST} is none of ours", id="no-name"),
        pytest.param({MANIFEST: b'{"model": []}'}, f"{MANIFEST} is none of ours", id="a-list"),
        pytest.param({"model-config.yaml": b"batchSize: 3"}, "no section handler", id="foreign"),
        pytest.param({"model-config.yaml": b"["}, "no section handler", id="no-yaml"),
    ],
)
def test_a_foreign_archive_is_refused_in_one_line(
    archive: Path, files: dict[str, bytes | None], told: str
) -> None:
    foreign = rewritten(archive, {**files, SUMS: None})
    with pytest.raises(CommandError, match=told) as refused:
        build_package(foreign)
    assert "\n" not in str(refused.value)
    assert [path.name for path in archive.parent.iterdir()] == ["shapes.mar"]


def test_a_package_leaves_batches_and_workers_to_the_endpoints_variables(archive: Path) -> None:
    package = build_package(archive).path
    model = json.loads(content(package, MANIFEST))["model"]
    assert model == {"modelName": "shapes", "handler": "handler.py", "modelVersion": "1.0"}
    settings = yaml.safe_load(content(package, "model-config.yaml"))
    assert settings == {"handler": SERVING_DEFAULTS["handler"]}


def test_a_package_for_many_models_keeps_the_archives_own_settings(archive: Path) -> None:
    package = build_package(archive, multi_model=True).path
    assert package.name == "shapes.mme.tar.gz"
    assert json.loads(content(package, MANIFEST))["model"]["configFile"] == "model-config.yaml"
    with zipfile.ZipFile(archive) as source:
        assert content(package, "model-config.yaml") == source.read("model-config.yaml")


def test_the_handlers_settings_go_along(archive: Path, tmp_path: Path) -> None:
    package = build_package(archive).path
    serving = tmp_path / "model-config.yaml"
    serving.write_bytes(content(package, serving.name))
    assert read_settings(serving) == Settings()


def test_what_is_known_of_a_package(archive: Path) -> None:
    built = build_package(archive)
    assert built == read_package(built.path)
    assert built.path == package_path(archive.parent, "shapes")
    assert built.name == "shapes"
    assert built.size_bytes == built.path.stat().st_size
    assert not [*archive.parent.glob(".*")]


def write_package(path: Path, **files: str) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            packed.addfile(entry, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({}, f"holds no {MANIFEST}", id="empty"),
        pytest.param({"code/inference.py": ""}, f"holds no {MANIFEST}", id="script-mode"),
        pytest.param({MANIFEST: "{"}, "is none of ours", id="no-json"),
        pytest.param({MANIFEST: "[]"}, "is none of ours", id="no-object"),
        pytest.param({MANIFEST: '{"model": {}}'}, "is none of ours", id="no-name"),
        pytest.param(
            {MANIFEST: '{"model": {"modelName": "a", "modelVersion": "2"}}'},
            r"version is 2, .* 1\.0 alone",
            id="another-version",
        ),
    ],
)
def test_what_is_no_package_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        read_package(write_package(tmp_path / "p.tar.gz", **files))


def test_a_package_cut_short_is_refused(archive: Path) -> None:
    package = build_package(archive).path
    package.write_bytes(package.read_bytes()[:-1000])
    with pytest.raises(CommandError, match="is damaged"):
        read_package(package)


@pytest.mark.parametrize("position", [20, 100, -8], ids=["codes", "data", "checksum"])
def test_a_damaged_package_is_refused(tmp_path: Path, position: int) -> None:
    package = write_package(tmp_path / "a.tar.gz", **{MANIFEST: OURS, "weights": "heavy" * 99})
    content = bytearray(package.read_bytes())
    content[position] ^= 0xFF
    package.write_bytes(content)
    with pytest.raises(CommandError, match="is damaged"):
        read_package(package)


@pytest.mark.parametrize("content", [b"", b"no tar.gz", gzip.compress(b"no tar")], ids=len)
def test_what_is_no_tar_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    with pytest.raises(CommandError, match="is damaged"):
        read_package(path)


@pytest.mark.parametrize(
    ("file", "command"),
    [("a.tar.gz", "make package NAME=a$"), ("a.mme.tar.gz", "make package NAME=a MULTI_MODEL=1$")],
)
def test_a_missing_package_names_the_command_that_builds_it(
    tmp_path: Path, file: str, command: str
) -> None:
    with pytest.raises(CommandError, match=command):
        read_package(tmp_path / file)


def test_a_missing_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="`make archive` builds it"):
        build_package(tmp_path / "a.mar")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mar").write_bytes(b"PK")
    with pytest.raises(CommandError, match="is damaged"):
        build_package(tmp_path / "a.mar")


@pytest.mark.parametrize(
    ("file", "missing"), [("a", MANIFEST), (MANIFEST, "model-config.yaml")], ids=["zip", "mar"]
)
def test_a_zip_that_is_no_archive_is_refused(tmp_path: Path, file: str, missing: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.mar", "w") as packed:
        packed.writestr(file, "{}")
    with pytest.raises(CommandError, match=f"holds no {missing}"):
        build_package(tmp_path / "a.mar")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mar"]


def test_a_build_that_breaks_off_leaves_the_package_as_it_was(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_package(archive)

    def break_off(_: object, file: BinaryIO) -> None:
        file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr("d2serve.building.package._pack", break_off)
    with pytest.raises(OSError, match="no space left"):
        build_package(archive)
    assert read_package(first.path) == first


@pytest.mark.parametrize("more", [[], ["--multi-model"]], ids=["one", "many"])
def test_the_command_says_what_to_do_next(
    archive: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    assert main(["--name", "shapes", "--model-store", str(archive.parent), *more]) == 0
    assert package_path(archive.parent, "shapes", multi_model=bool(more)).is_file()
    said = capsys.readouterr().out
    assert "make sagemaker-local NAME=shapes" in said
    assert ("MULTI_MODEL=1" in said) == bool(more)
