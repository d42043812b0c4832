"""The archive of an application on this node: downloaded and unpacked once."""

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from d2serve.errors import ArchiveError
from d2serve.servers.asgi.model_folders import find_archive
from d2serve.serving.archive_files import unpack_archive
from d2serve.serving.integrity import verify_folder

logger = logging.getLogger(__name__)
S3 = "s3"
# The folder of unpacked archives; by default one of this user in the system's temporary folder.
CACHE_VARIABLE = "D2SERVE_ARCHIVE_CACHE"


def local_folder(archive: str) -> Path:
    """The unpacked archive on this node; the first process of a node downloads and unpacks it.

    Args:
        archive: a path, or an s3:// URI; see `ApplicationOptions`.

    Raises:
        ArchiveError: the archive is missing, damaged or malicious, or cannot be downloaded.
    """
    url = urlsplit(archive)
    if url.scheme == S3:
        return _from_s3(url.netloc, url.path.lstrip("/"), archive)
    if "://" in archive:
        raise ArchiveError(f"archive {archive!r} has another scheme than s3://; use it, or a path")
    path = find_archive(Path(archive))
    if path.is_dir():
        return path
    if not path.is_file():
        raise ArchiveError(
            f"{path} does not exist on node {os.uname().nodename}; give a path that exists on each "
            "node, or an s3:// URI"
        )
    stat = path.stat()
    key = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    return _cached(key, lambda folder: unpack_archive(path, folder))


def name_of(archive: str) -> str:
    """The file name of an archive, from which its model's name is derived."""
    is_path = urlsplit(archive).scheme != S3
    return find_archive(Path(archive)).name if is_path else PurePosixPath(archive).name


def _from_s3(bucket: str, key: str, uri: str) -> Path:
    if not bucket or not key or key.endswith("/"):
        raise ArchiveError(f"archive {uri!r} names no object; use s3://BUCKET/KEY.mar")
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ModuleNotFoundError as error:
        raise ArchiveError(
            f"archive {uri!r} needs the package boto3 on each node; install it with: "
            "pip install 'd2serve[aws]'"
        ) from error
    try:
        client = boto3.client(S3)
        etag = client.head_object(Bucket=bucket, Key=key)["ETag"]
        return _cached(f"{uri} {etag}", lambda folder: _download(client, bucket, key, folder))
    except (BotoCoreError, ClientError) as error:
        raise ArchiveError(f"{uri} cannot be downloaded: {error}") from error


def _download(client: Any, bucket: str, key: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        file = Path(temporary, PurePosixPath(key).name)
        client.download_file(bucket, key, str(file))
        unpack_archive(file, folder)


def _cached(key: str, unpack: Callable[[Path], None]) -> Path:
    """Unpack into the folder of a key, unless it exists; other processes wait meanwhile.

    Raises:
        ArchiveError: the archive is damaged; nothing remains of it then.
    """
    cache = _cache_folder()
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder, partial = cache / digest, cache / f"{digest}.partial"
    with (cache / f"{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return folder
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            unpack(partial)
            verify_folder(partial)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    logger.info("unpacked %s to %s", key, folder)
    return folder


def _cache_folder() -> Path:
    """The folder of unpacked archives, which no other user can write to.

    Raises:
        ArchiveError: another user owns it.
    """
    given = os.environ.get(CACHE_VARIABLE)
    folder = Path(given) if given else Path(tempfile.gettempdir(), f"d2serve-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ArchiveError(
            f"{folder} belongs to another user; set {CACHE_VARIABLE} to a folder of your own"
        )
    return folder
