"""Packages: content, reproducibility, and inputs that are rejected."""

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

from d2serve.building.archive import DEFAULT_MODEL_CONFIG, build_archive
from d2serve.building.package import build_package, package_path, read_package
from d2serve.building.packing import sums_of
from d2serve.cli.main import invoke
from d2serve.errors import ArchiveError
from d2serve.serving.integrity import format_sums, verify_folder
from d2serve.serving.model_config import read_settings
from d2serve.settings import Settings

MANIFEST = "MAR-INF/MANIFEST.json"
SUMS = "SHA256SUMS"
VALID_MANIFEST = '{"model": {"modelName": "a", "modelVersion": "1.0"}}'


@pytest.fixture
def archive(shapes_mar: Path, tmp_path: Path) -> Path:
    """An archive in a store that the test may write to."""
    return Path(shutil.copy(shapes_mar, tmp_path))


def content(package: Path, name: str) -> bytes:
    with tarfile.open(package) as packed:
        member = packed.extractfile(name)
        assert member
        return member.read()


def test_a_package_contains_the_files_of_the_archive(archive: Path) -> None:
    package = build_package(archive).path
    with zipfile.ZipFile(archive) as source, tarfile.open(package) as packed:
        assert sorted(packed.getnames()) == sorted(source.namelist())
        for member in packed:
            if member.name not in (MANIFEST, "model-config.yaml", SUMS):
                file = packed.extractfile(member)
                assert file is not None
                assert file.read() == source.read(member.name)


def test_the_same_model_gives_the_same_bytes(shapes: Path, tmp_path: Path) -> None:
    """Build the archive and the package from the trained files."""
    packages = [
        build_package(
            build_archive(
                shapes / "config.yaml",
                shapes / "model_final.pth",
                tmp_path / store / "shapes.mar",
                class_names=shapes / "classes.json",
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
    """The archive with files replaced, added or, if None, removed; the sums stay."""
    with zipfile.ZipFile(archive) as packed:
        kept = {name: packed.read(name) for name in packed.namelist()} | files
    with zipfile.ZipFile(archive, "w") as packed:
        for name, content in kept.items():
            if content is not None:
                packed.writestr(name, content)
    return archive


def rebuilt(archive: Path, files: dict[str, bytes]) -> Path:
    """The archive with files replaced or added and sums of all of them."""
    with zipfile.ZipFile(archive) as packed:
        kept = {name: packed.read(name) for name in packed.namelist()} | files
    return rewritten(archive, {**files, SUMS: format_sums(sums_of(kept)).encode()})


def test_another_model_gives_other_bytes(archive: Path) -> None:
    first = build_package(archive)
    other = rebuilt(archive, {"model/classes.json": b'["other"]'})
    assert build_package(other).sha256 != first.sha256


@pytest.mark.parametrize("multi_model", [False, True])
def test_a_package_keeps_its_own_sums(archive: Path, tmp_path: Path, multi_model: bool) -> None:
    package = build_package(archive, multi_model=multi_model).path
    with tarfile.open(package) as packed:
        packed.extractall(tmp_path / "model", filter="data")
    verify_folder(tmp_path / "model")
    (tmp_path / "model" / MANIFEST).write_text("{}")
    with pytest.raises(ArchiveError, match=r"changed 'MAR-INF/MANIFEST\.json'"):
        verify_folder(tmp_path / "model")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({"handler.py": b"import os"}, "changed 'handler.py'", id="changed"),
        pytest.param({"more.py": b""}, "unexpected 'more.py'", id="unexpected"),
        pytest.param({"model/weights.pt": None}, "missing 'model/weights.pt'", id="missing"),
    ],
)
def test_an_archive_with_changed_files_is_rejected(
    archive: Path, files: dict[str, bytes | None], message: str
) -> None:
    with pytest.raises(
        ArchiveError, match=rf"shapes\.mar: the files do not match SHA256SUMS: {message}"
    ):
        build_package(rewritten(archive, files))


def test_an_archive_without_sums_is_rejected(archive: Path) -> None:
    message = r"shapes\.mar: the archive has no SHA256SUMS, .* build the archive again"
    with pytest.raises(ArchiveError, match=message):
        build_package(rewritten(archive, {SUMS: None}))
    assert [path.name for path in archive.parent.iterdir()] == ["shapes.mar"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({MANIFEST: b"{"}, f"{MANIFEST} has no model", id="manifest-no-json"),
        pytest.param({MANIFEST: b'{"model": {}}'}, f"{MANIFEST} has no model", id="no-name"),
        pytest.param({MANIFEST: b'{"model": []}'}, f"{MANIFEST} has no model", id="a-list"),
        pytest.param({"model-config.yaml": b"batchSize: 3"}, "no section handler", id="foreign"),
        pytest.param({"model-config.yaml": b"["}, "no section handler", id="no-yaml"),
    ],
)
def test_a_foreign_archive_is_rejected_in_one_line(
    archive: Path, files: dict[str, bytes], message: str
) -> None:
    foreign = rebuilt(archive, files)
    with pytest.raises(ArchiveError, match=message) as raised:
        build_package(foreign)
    assert "\n" not in str(raised.value)
    assert [path.name for path in archive.parent.iterdir()] == ["shapes.mar"]


def test_a_package_leaves_batches_and_workers_to_the_endpoints_variables(archive: Path) -> None:
    package = build_package(archive).path
    model = json.loads(content(package, MANIFEST))["model"]
    assert model == {"modelName": "shapes", "handler": "handler.py", "modelVersion": "1.0"}
    settings = yaml.safe_load(content(package, "model-config.yaml"))
    assert settings == {"handler": DEFAULT_MODEL_CONFIG["handler"]}


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


def test_metadata_of_a_package(archive: Path) -> None:
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
        pytest.param({}, f"has no {MANIFEST}", id="empty"),
        pytest.param({"code/inference.py": ""}, f"has no {MANIFEST}", id="script-mode"),
        pytest.param({MANIFEST: "{"}, "has no model", id="no-json"),
        pytest.param({MANIFEST: "[]"}, "has no model", id="no-object"),
        pytest.param({MANIFEST: '{"model": {}}'}, "has no model", id="no-name"),
        pytest.param(
            {MANIFEST: '{"model": {"modelName": "a", "modelVersion": "2"}}'},
            r"version is 2, .* only to 1\.0",
            id="another-version",
        ),
    ],
)
def test_a_file_that_is_no_package_is_rejected(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    with pytest.raises(ArchiveError, match=message):
        read_package(write_package(tmp_path / "p.tar.gz", **files))


def test_a_truncated_package_is_rejected(archive: Path) -> None:
    package = build_package(archive).path
    package.write_bytes(package.read_bytes()[:-1000])
    with pytest.raises(ArchiveError, match="is damaged"):
        read_package(package)


@pytest.mark.parametrize("position", [20, 100, -8], ids=["codes", "data", "checksum"])
def test_a_damaged_package_is_rejected(tmp_path: Path, position: int) -> None:
    package = write_package(
        tmp_path / "a.tar.gz", **{MANIFEST: VALID_MANIFEST, "weights": "heavy" * 99}
    )
    content = bytearray(package.read_bytes())
    content[position] ^= 0xFF
    package.write_bytes(content)
    with pytest.raises(ArchiveError, match="is damaged"):
        read_package(package)


@pytest.mark.parametrize("content", [b"", b"no tar.gz", gzip.compress(b"no tar")], ids=len)
def test_a_file_that_is_no_tar_file_is_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="is damaged"):
        read_package(path)


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("a.tar.gz", "d2serve package --name a$"),
        ("a.mme.tar.gz", "d2serve package --name a --multi-model$"),
    ],
)
def test_a_missing_package_names_the_command_that_builds_it(
    tmp_path: Path, file: str, command: str
) -> None:
    with pytest.raises(ArchiveError, match=command):
        read_package(tmp_path / file)


def test_a_missing_archive_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="`d2serve archive` builds it"):
        build_package(tmp_path / "a.mar")


def test_a_damaged_archive_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.mar").write_bytes(b"PK")
    with pytest.raises(ArchiveError, match="is damaged"):
        build_package(tmp_path / "a.mar")


@pytest.mark.parametrize(
    ("file", "missing"), [("a", MANIFEST), (MANIFEST, "model-config.yaml")], ids=["zip", "mar"]
)
def test_a_zip_that_is_no_archive_is_rejected(tmp_path: Path, file: str, missing: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.mar", "w") as packed:
        packed.writestr(file, "{}")
    with pytest.raises(ArchiveError, match=f"has no {missing}"):
        build_package(tmp_path / "a.mar")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mar"]


def test_an_interrupted_build_keeps_the_previous_package(
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
def test_the_command_reports_the_next_step(
    archive: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    command = ["package", "--name", "shapes", "--model-store", str(archive.parent)]
    assert invoke([*command, *more]) == 0
    assert package_path(archive.parent, "shapes", multi_model=bool(more)).is_file()
    output = capsys.readouterr().out
    assert "d2serve sagemaker-local --name shapes" in output
    assert ("--multi-model" in output) == bool(more)
