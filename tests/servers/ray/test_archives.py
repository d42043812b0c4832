"""Archives on a node of a Ray cluster: paths, folders and S3."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from d2serve.errors import ArchiveError
from d2serve.servers.ray.archives import CACHE_VARIABLE, local_folder, name_of
from tests.serving.archives import WEIGHTS, unpack

BUCKET, KEY = "models", "vision/shapes.mar"
URI = f"s3://{BUCKET}/{KEY}"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    return folder


@pytest.fixture
def s3(shapes_mar: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """S3 with the bundled model's archive."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        client.upload_file(str(shapes_mar), BUCKET, KEY)
        yield client


def unpacked_in(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def test_an_archive_is_unpacked_once(shapes_mar: Path, cache: Path) -> None:
    folder = local_folder(str(shapes_mar))
    assert (folder / "model" / "weights.pt").is_file()
    created = folder.stat().st_ctime_ns
    assert local_folder(str(shapes_mar)) == folder
    assert folder.stat().st_ctime_ns == created
    os.utime(shapes_mar)  # another file of the same name
    assert local_folder(str(shapes_mar)) != folder
    assert len(unpacked_in(cache)) == 2


def test_a_folder_is_used_as_it_is(shapes_mar: Path, tmp_path: Path) -> None:
    folder = unpack(shapes_mar, tmp_path / "unpacked")
    assert local_folder(str(folder)) == folder


def test_a_download_is_repeated_only_for_a_new_object(s3: Any, cache: Path) -> None:
    folder = local_folder(URI)
    assert (folder / "model" / "weights.pt").is_file()
    assert local_folder(URI) == folder
    assert len(unpacked_in(cache)) == 1
    s3.put_object(Bucket=BUCKET, Key=KEY, Body=b"no archive")
    with pytest.raises(ArchiveError, match=r"is neither a \.mar archive nor"):
        local_folder(URI)
    assert unpacked_in(cache) == [folder]


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        ("/no/such/shapes.mar", r"does not exist on node .*; give a path that exists on each node"),
        ("https://example.org/shapes.mar", r"another scheme than s3://"),
        ("s3://models", r"names no object; use s3://BUCKET/KEY"),
        (f"s3://{BUCKET}/missing.mar", r"s3://models/missing.mar cannot be downloaded"),
    ],
)
@pytest.mark.usefixtures("s3")
def test_an_error_names_the_archive(archive: str, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        local_folder(archive)


def test_a_changed_archive_is_rejected(shapes_mar: Path, tmp_path: Path, cache: Path) -> None:
    changed = tmp_path / "changed.mar"
    with zipfile.ZipFile(shapes_mar) as source, zipfile.ZipFile(changed, "w") as target:
        for entry in source.infolist():
            altered = b"x" if entry.filename == WEIGHTS else b""
            target.writestr(entry, source.read(entry) + altered)
    with pytest.raises(ArchiveError, match=r"do not match SHA256SUMS: changed 'model/weights.pt'"):
        local_folder(str(changed))
    assert unpacked_in(cache) == []


def test_the_model_is_named_after_the_file(shapes_mar: Path) -> None:
    assert name_of(URI) == name_of(str(shapes_mar)) == "shapes.mar"
