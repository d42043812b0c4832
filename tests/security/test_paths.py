"""Archives, packages and names that lead out of the folder that they belong to."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from d2serve.aws.local_container import unpack
from d2serve.building.package import build_package, read_package
from d2serve.building.packing import sums_of
from d2serve.cli.main import invoke
from d2serve.errors import ArchiveError, CommandError
from d2serve.serving.integrity import format_sums

MANIFEST = "MAR-INF/MANIFEST.json"
FILES = {
    MANIFEST: b'{"model": {"modelName": "a", "modelVersion": "1.0", "configFile": "c"}}',
    "model-config.yaml": b"handler: {}",
}
OUTSIDE = ["../evil.py", "a/../../evil.py", "/tmp/d2serve-evil.py", "..\\evil.py", "a/.."]


@pytest.mark.parametrize(
    "name", ["../x", "..", "a/b", "/etc/x", "a\0b", "a\nb", ".hidden", "x.mar"]
)
@pytest.mark.parametrize("command", ["archive", "package", "sagemaker-local"])
def test_a_name_outside_the_store_is_rejected(tmp_path: Path, command: str, name: str) -> None:
    store = tmp_path / "store"
    store.mkdir()
    for outside in (tmp_path / "x.mar", tmp_path / "x.tar.gz"):
        outside.write_bytes(b"not ours")
    more = ["--config", "c.yaml", "--weights", "w.pth"] if command == "archive" else []
    with pytest.raises(CommandError, match=r"NAME .*; use letters, digits, - and _"):
        invoke([command, *more, "--name", name, "--model-store", str(store)])
    assert {path.name for path in tmp_path.iterdir()} == {"store", "x.mar", "x.tar.gz"}


def zipped(path: Path, *entries: zipfile.ZipInfo | str, content: bytes = b"evil") -> Path:
    """An archive whose sums are correct."""
    names = [entry if isinstance(entry, str) else entry.filename for entry in entries]
    sums = sums_of({**FILES, **dict.fromkeys(names, content)})
    with zipfile.ZipFile(path, "w") as packed:
        for name, text in {**FILES, "SHA256SUMS": format_sums(sums).encode()}.items():
            packed.writestr(name, text)
        for entry in entries:
            packed.writestr(entry, content)
    return path


def test_a_valid_archive_is_packaged(tmp_path: Path) -> None:
    assert build_package(zipped(tmp_path / "a.mar", "deep/more.py")).name == "a"


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_archive_with_files_outside_is_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArchiveError, match=r"a\.mar contains .*, which is a path that leads out"):
        build_package(zipped(tmp_path / "a.mar", name))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mar"]


def test_a_link_in_an_archive_is_rejected(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("weights.pt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(ArchiveError, match=r"a\.mar contains 'weights\.pt', which is a link"):
        build_package(zipped(tmp_path / "a.mar", link, content=b"/etc/passwd"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_duplicate_name_is_rejected(tmp_path: Path) -> None:
    """Readers differ in the entry that they use."""
    with pytest.raises(ArchiveError, match=r"'handler\.py', which occurs 2 times"):
        build_package(zipped(tmp_path / "a.mar", "handler.py", "handler.py"))


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def sparse(name: str, size: int) -> tarfile.TarInfo:
    """A file of `size` zeros that takes no space."""
    made = entry(name)
    made.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(size)}
    return made


def tarred(path: Path, *entries: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for name, content in FILES.items():
            file = tarfile.TarInfo(name)
            file.size = len(content)
            packed.addfile(file, io.BytesIO(content))
        for each in entries:
            packed.addfile(each)
    return path


HOSTILE_ENTRIES = {
    **{name: [entry(name)] for name in OUTSIDE if "\\" not in name},
    "symlink": [entry("weights.pt", tarfile.SYMTYPE, "../../victim")],
    "absolute-symlink": [entry("weights.pt", tarfile.SYMTYPE, "/etc/passwd")],
    "hardlink": [entry("weights.pt", tarfile.LNKTYPE, "../../victim")],
    "through-a-link": [entry("up", tarfile.SYMTYPE, ".."), entry("up/evil.py")],
    "device": [entry("null", tarfile.CHRTYPE)],
    "with-holes": [sparse("weights.pt", 10**12)],
    "fifo": [entry("pipe", tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("entries", HOSTILE_ENTRIES.values(), ids=HOSTILE_ENTRIES)
def test_a_package_with_other_entries_than_files_is_rejected(
    tmp_path: Path, entries: list[tarfile.TarInfo]
) -> None:
    assert read_package(tarred(tmp_path / "good.tar.gz")).name == "a"
    hostile = tarred(tmp_path / "evil.tar.gz", *entries)
    with pytest.raises(ArchiveError, match=r"evil\.tar\.gz contains .*, which is a "):
        read_package(hostile)


@pytest.mark.parametrize("name", ["../evil.py", "through-a-link"])
def test_unpacking_leaves_nothing_outside(tmp_path: Path, name: str) -> None:
    hostile = tarred(tmp_path / "evil.tar.gz", *HOSTILE_ENTRIES[name])
    careless = tmp_path / "careless" / "model"
    careless.mkdir(parents=True)
    with tarfile.open(hostile) as packed:
        packed.extractall(careless, filter="fully_trusted")
    assert (careless.parent / "evil.py").exists(), "the payload does not run"
    careful = tmp_path / "careful" / "model"
    with pytest.raises(tarfile.FilterError):
        unpack(hostile, careful)
    assert [path.name for path in careful.parent.iterdir()] == ["model"]
