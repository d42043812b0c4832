"""An unpacked archive beside its sums: what passes, and what is told of the rest."""

import hashlib
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from d2serve.serving.integrity import (
    SUMS_FILE,
    IntegrityError,
    check_folder,
    is_inside,
    parse_sums,
    sha256_of,
    sums_text,
)

FILES = {"handler.py": b"import handler", "handler/deep/a.py": b"", "weights.npz": bytes(3_000_000)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An unpacked archive with its sums."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "model-config.yaml").write_text("batchSize: 8")
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    (tmp_path / SUMS_FILE).write_text(sums_text(sums))
    return tmp_path


def link_to_a_folder(folder: Path) -> None:
    (folder / "more").symlink_to(folder.parent)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "handler.py").write_text("import evil"), "changed 'service.py'"),
        (lambda folder: (folder / "handler/deep/a.py").unlink(), "missing 'handler/deep/a.py'"),
        (lambda folder: (folder / "handler/b.py").touch(), "additional 'handler/b.py'"),
        (lambda folder: (folder / ".hidden").touch(), "additional '.hidden'"),
        (link_to_a_folder, "additional 'more'"),
        (
            lambda folder: (folder / "handler" / SUMS_FILE).touch(),
            "additional 'handler/SHA256SUMS'",
        ),
    ],
)
def test_what_is_not_as_packed_is_named(
    folder: Path, change: Callable[[Path], None], told: str
) -> None:
    check_folder(folder)
    change(folder)
    with pytest.raises(IntegrityError) as refused:
        check_folder(folder)
    assert f"those of its {SUMS_FILE}: {told}" in str(refused.value)
    assert ", " not in str(refused.value)


def test_one_bit_of_the_weights_is_told(folder: Path) -> None:
    weights = bytearray(FILES["weights.npz"])
    weights[2_500_000] ^= 1
    (folder / "weights.npz").write_bytes(weights)
    with pytest.raises(IntegrityError, match=r"changed 'weights\.npz'"):
        check_folder(folder)


def test_all_problems_are_told_up_to_ten(folder: Path) -> None:
    (folder / "weights.npz").unlink()
    for index in range(15):
        (folder / f"more_{index}").touch()
    with pytest.raises(IntegrityError, match=r"missing 'weights\.npz', additional .*, and 6 more"):
        check_folder(folder)


def test_operators_may_change_the_settings(folder: Path) -> None:
    (folder / "model-config.yaml").write_text("batchSize: 1")
    check_folder(folder)
    (folder / "model-config.yaml").unlink()
    check_folder(folder)


def test_pythons_bytecode_may_lie_beside_its_source_alone(folder: Path) -> None:
    cache = folder / "handler" / "deep" / "__pycache__"
    cache.mkdir()
    (cache / "a.cpython-311.pyc").touch()
    check_folder(folder)
    (cache / "b.cpython-311.pyc").touch()
    with pytest.raises(IntegrityError, match=r"additional 'handler/deep/__pycache__/b\."):
        check_folder(folder)


def test_files_may_be_links_as_long_as_their_content_is_right(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-weights"
    (folder / "weights.npz").rename(elsewhere)
    (folder / "weights.npz").symlink_to(elsewhere)
    check_folder(folder)


def test_an_archive_without_sums_passes_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / SUMS_FILE).unlink()
    with caplog.at_level(logging.WARNING):
        check_folder(folder)
    assert "no SHA256SUMS" in caplog.text


def test_people_can_write_sums_too(folder: Path) -> None:
    (folder / "handler.py").write_text("changed by an operator")
    write = (
        "find . -type f ! -name SHA256SUMS ! -name model-config.yaml -print0"
        " | sort -z | xargs -0 sha256sum > SHA256SUMS"
    )
    subprocess.run(["bash", "-c", write], cwd=folder, check=True)
    check_folder(folder)


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
def test_lines_that_are_no_sums_of_files_inside_are_refused(line: str) -> None:
    with pytest.raises(IntegrityError, match="line 2 of SHA256SUMS"):
        parse_sums(f"{'0' * 64}  good\n{line}\n".encode())


def test_sums_come_back() -> None:
    sums = {"b c": "1" * 64, "a/ü": "2" * 64}
    assert parse_sums(sums_text(sums).encode()) == sums


@pytest.mark.parametrize("name", ["a", "a/b", "./a", "a b", "...", "ü"])
def test_paths_inside(name: str) -> None:
    assert is_inside(name)


@pytest.mark.parametrize("name", ["", ".", "/a", "..", "../a", "a/../b", "a\\b", "a\nb", "a\0"])
def test_paths_that_may_lead_out(name: str) -> None:
    assert not is_inside(name)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="absent cannot be read"):
        sha256_of(tmp_path / "absent")
