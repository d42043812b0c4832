"""Zip files with a damaged directory are reported, by the size check and by the reader."""

import io
from pathlib import Path

import pytest
import torch

from d2serve.building.checkpoint import read_checkpoint
from d2serve.building.members import check_checkpoint_size, read_archive
from d2serve.errors import ArchiveError, CheckpointError
from d2serve.serving.archive_files import unpack_archive
from tests.building.checkpoint.saving import tensors

ENTRY = b"PK\1\2"


def damaged(offset: int, value: bytes) -> bytes:
    """A torch file with other bytes in the first entry of its directory."""
    written = io.BytesIO()
    torch.save({"model": tensors()}, written)
    content = bytearray(written.getvalue())
    start = content.index(ENTRY) + offset
    content[start : start + len(value)] = value
    return bytes(content)


DAMAGES = {
    "a future version": damaged(6, b"\xff\xff"),
    "a method that does not exist": damaged(10, b"\x63\0"),
    "encryption": damaged(8, b"\x01\x08"),
    "a name that is not UTF-8": damaged(46, b"\xff\xfe"),
    "a broken extra field": damaged(30, b"\xff\0"),
    "a huge size": damaged(20, b"\xfe\xff\xff\xff\xfe\xff\xff\xff"),
    "a distant start": damaged(42, b"\xff\xff\xff\x7f"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_is_reported(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(DAMAGES[damage])
    try:
        check_checkpoint_size(path)
        read_checkpoint(path)  # torch ignores some of the damage
    except (ArchiveError, CheckpointError) as error:
        assert "model.pth" in str(error)  # noqa: PT017


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_archive_is_reported(tmp_path: Path, damage: str) -> None:
    (tmp_path / "a.mar").write_bytes(DAMAGES[damage])
    with pytest.raises(ArchiveError, match=r"a\.mar"):
        read_archive(tmp_path / "a.mar")


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_archive_to_serve_is_reported(tmp_path: Path, damage: str) -> None:
    (tmp_path / "a.mar").write_bytes(DAMAGES[damage])
    try:
        unpack_archive(tmp_path / "a.mar", tmp_path / "unpacked")
    except ArchiveError as error:
        assert "a.mar" in str(error)  # noqa: PT017
