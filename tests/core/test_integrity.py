"""Verify unpacked archives against their sums."""

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from d2serve.errors import ArchiveError
from d2serve.serving.integrity import (
    SUMS_FILE,
    format_sums,
    is_inside,
    parse_sums,
    sha256_of,
    verify_folder,
)

FILES = {"handler.py": b"import handler", "d2serve/deep/a.py": b"", "weights.pt": bytes(3_000_000)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An unpacked archive with its sums."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "model-config.yaml").write_text("batchSize: 8")
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    (tmp_path / SUMS_FILE).write_text(format_sums(sums))
    return tmp_path


def link_to_a_folder(folder: Path) -> None:
    (folder / "more").symlink_to(folder.parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "handler.py").write_text("import evil"), "changed 'handler.py'"),
        (lambda folder: (folder / "d2serve/deep/a.py").unlink(), "missing 'd2serve/deep/a.py'"),
        (lambda folder: (folder / "d2serve/b.py").touch(), "unexpected 'd2serve/b.py'"),
        (lambda folder: (folder / ".hidden").touch(), "unexpected '.hidden'"),
        (link_to_a_folder, "unexpected 'more'"),
        (
            lambda folder: (folder / "d2serve" / SUMS_FILE).touch(),
            "unexpected 'd2serve/SHA256SUMS'",
        ),
    ],
)
def test_changed_files_are_named(
    folder: Path, change: Callable[[Path], None], message: str
) -> None:
    verify_folder(folder)
    change(folder)
    with pytest.raises(ArchiveError) as raised:
        verify_folder(folder)
    assert f"the files do not match {SUMS_FILE}: {message}; " in str(raised.value)
    assert ", " not in str(raised.value)


def test_a_changed_bit_of_the_weights_is_detected(folder: Path) -> None:
    weights = bytearray(FILES["weights.pt"])
    weights[2_500_000] ^= 1
    (folder / "weights.pt").write_bytes(weights)
    with pytest.raises(ArchiveError, match=r"changed 'weights\.pt'"):
        verify_folder(folder)


def test_ten_problems_are_listed(folder: Path) -> None:
    (folder / "weights.pt").unlink()
    for index in range(15):
        (folder / f"more_{index}").touch()
    with pytest.raises(ArchiveError, match=r"missing 'weights\.pt', unexpected .*, and 6 more"):
        verify_folder(folder)


def test_operators_may_change_the_settings(folder: Path) -> None:
    (folder / "model-config.yaml").write_text("batchSize: 1")
    verify_folder(folder)
    (folder / "model-config.yaml").unlink()
    verify_folder(folder)


def test_only_bytecode_of_listed_modules_is_ignored(folder: Path) -> None:
    cache = folder / "d2serve" / "deep" / "__pycache__"
    cache.mkdir()
    (cache / "a.cpython-311.pyc").touch()
    verify_folder(folder)
    (cache / "b.cpython-311.pyc").touch()
    with pytest.raises(ArchiveError, match=r"unexpected 'd2serve/deep/__pycache__/b\."):
        verify_folder(folder)


def test_links_to_files_with_the_right_content_are_accepted(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-weights"
    (folder / "weights.pt").rename(elsewhere)
    (folder / "weights.pt").symlink_to(elsewhere)
    verify_folder(folder)


def test_an_archive_without_sums_is_rejected(folder: Path) -> None:
    (folder / SUMS_FILE).unlink()
    with pytest.raises(ArchiveError, match=r"no SHA256SUMS, .*; build the archive again with"):
        verify_folder(folder)


def test_sums_may_be_written_by_sha256sum(folder: Path) -> None:
    (folder / "handler.py").write_text("changed by an operator")
    write = (
        "find . -type f ! -name SHA256SUMS ! -name model-config.yaml -print0"
        " | sort -z | xargs -0 sha256sum > SHA256SUMS"
    )
    subprocess.run(["bash", "-c", write], cwd=folder, check=True)
    verify_folder(folder)


@pytest.mark.parametrize(
    "line",
    [
        "0" * 63 + "  a",
        "0" * 64 + " a",
        "0" * 64,
        "nonsense",
        "0" * 64 + "  /etc/passwd",
        "0" * 64 + "  ../up",
        "0" * 64 + "  a/../../up",
        "0" * 64 + "  a\\b",
        "\\" + "0" * 64 + "  a\\nb",
    ],
)
def test_invalid_lines_are_rejected(line: str) -> None:
    with pytest.raises(ArchiveError, match="line 2 of SHA256SUMS"):
        parse_sums(f"{'0' * 64}  good\n{line}\n".encode())


def test_formatted_sums_can_be_parsed() -> None:
    sums = {"b c": "1" * 64, "a/ü": "2" * 64}
    assert parse_sums(format_sums(sums).encode()) == sums


@pytest.mark.parametrize("name", ["a", "a/b", "./a", "a b", "...", "ü"])
def test_paths_inside_the_folder(name: str) -> None:
    assert is_inside(name)


@pytest.mark.parametrize("name", ["", ".", "/a", "..", "../a", "a/../b", "a\\b", "a\nb", "a\0"])
def test_paths_outside_the_folder(name: str) -> None:
    assert not is_inside(name)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="absent cannot be read"):
        sha256_of(tmp_path / "absent")
