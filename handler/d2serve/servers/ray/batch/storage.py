"""Files of a job, in a local folder or in S3."""

import posixpath
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from d2serve.errors import CommandError

S3 = "s3://"
PARTIAL = ".partial"


class Storage:
    """A folder, local or in S3, whose files appear complete or not at all.

    Args:
        root: a path or an s3:// URI.

    Raises:
        CommandError: the URI has another scheme.
    """

    def __init__(self, root: str) -> None:
        from pyarrow import fs

        if "://" in root and not root.startswith(S3):
            raise CommandError(f"{root!r} has another scheme than s3://; use it, or a path")
        self.is_remote = root.startswith(S3)
        self.root = root.removeprefix(S3).rstrip("/") if self.is_remote else absolute(root)
        self.files: Any = (
            fs.FileSystem.from_uri(root)[0] if self.is_remote else fs.LocalFileSystem()
        )

    def read(self, name: str) -> bytes:
        """Read a file.

        Raises:
            FileNotFoundError: it does not exist.
        """
        with self.open(name) as file:
            content: bytes = file.read()
        return content

    def open(self, name: str) -> Any:
        """Open a file for reading at any position.

        Raises:
            FileNotFoundError: it does not exist.
        """
        return self.files.open_input_file(self._path(name))

    def write(self, name: str, content: bytes) -> None:
        """Write a file; readers see all of it or, until then, the previous one."""
        path = self._path(name)
        if self.is_remote:
            with self.files.open_output_stream(path) as file:
                file.write(content)
            return
        with _replacing(Path(path)) as partial:
            partial.write_bytes(content)

    def upload(self, name: str, source: Path) -> None:
        """Copy a local file of any size to here, as `write` does."""
        path = self._path(name)
        if self.is_remote:
            with source.open("rb") as content, self.files.open_output_stream(path) as file:
                shutil.copyfileobj(content, file)
            return
        with _replacing(Path(path)) as partial:
            shutil.copyfile(source, partial)

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""
        with suppress(FileNotFoundError):
            self.files.delete_file(self._path(name))

    def names(self, folder: str) -> set[str]:
        """The names of the files in a folder; empty if it does not exist."""
        from pyarrow import fs

        selector = fs.FileSelector(self._path(folder), allow_not_found=True)
        return {info.base_name for info in self.files.get_file_info(selector) if info.is_file}

    def _path(self, name: str) -> str:
        return posixpath.join(self.root, name)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A new file beside `path`, which it replaces at the end of the block."""
    partial = Path(f"{path}.{uuid.uuid4().hex}{PARTIAL}")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def absolute(path: str) -> str:
    """An absolute path, with symbolic links kept; URIs stay as they are."""
    return path if path.startswith(S3) else str(Path(path).absolute())
