"""Small archives, packages and checkpoints that would unpack to large ones."""

import io
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from d2serve.building.members import read_archive
from d2serve.building.package import read_package
from d2serve.cli.main import invoke
from d2serve.errors import ArchiveError
from d2serve.serving import archive_files
from d2serve.serving.archive_files import check_unpacked_size

SMALL = 1_000_000
LARGE = 30_000_000
MEMORY_BYTES = 20_000_000
BOMB = "weights.pt"


def zip_bomb(path: Path, size: int = LARGE) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(BOMB, bytes(size))
    return path


def tar_bomb(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        entry = tarfile.TarInfo(BOMB)
        entry.size = LARGE
        packed.addfile(entry, io.BytesIO(bytes(LARGE)))
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limits, to keep the bombs small."""
    monkeypatch.setattr(archive_files, "SMALL_BYTES", SMALL)


@pytest.mark.parametrize(
    ("bomb", "read"), [(zip_bomb, read_archive), (tar_bomb, read_package)], ids=["mar", "tar.gz"]
)
def test_a_bomb_is_rejected_without_unpacking_it(
    tmp_path: Path, bomb: Callable[[Path], Path], read: Callable[[Path], object]
) -> None:
    path = bomb(tmp_path / "bomb")
    assert 500 * path.stat().st_size < LARGE, "the payload is not a bomb"
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match=r"bomb unpacks to more than 1 MB"):
            read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_BYTES


def test_a_bomb_with_a_wrong_declared_size_is_not_unpacked(tmp_path: Path) -> None:
    path = zip_bomb(tmp_path / "bomb")
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", LARGE), struct.pack("<I", 10)))
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match="is damaged"):
            read_archive(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_BYTES


def test_many_files_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_files, "MAX_FILES", 10)
    path = tmp_path / "many.mar"
    with zipfile.ZipFile(path, "w") as packed:
        for number in range(11):
            packed.writestr(f"{number}.txt", b"")
    with pytest.raises(ArchiveError, match=r"many\.mar has 11 files, accepted are at most 10"):
        read_archive(path)


def test_large_files_that_hardly_shrink_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "large.mar"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(BOMB, bytes(3 * SMALL))
    with zipfile.ZipFile(path) as packed:
        check_unpacked_size(packed, path)


def test_a_checkpoint_that_is_a_bomb_is_rejected(tmp_path: Path, shapes: Path) -> None:
    bomb = zip_bomb(tmp_path / "bomb.pth")
    files = ["--config", str(shapes / "config.yaml"), "--weights", str(bomb)]
    with pytest.raises(ArchiveError, match=r"bomb\.pth unpacks to more than 1 MB"):
        invoke(["archive", *files, "--name", "bomb", "--model-store", str(tmp_path)])
