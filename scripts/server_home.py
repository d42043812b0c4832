"""A folder of its own for each server: its pid file, sockets, tokens and model."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The server puts its workers' sockets in there, and macOS allows their paths 104 bytes.
LONGEST_TEMP_DIR = 64


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A folder for one server, whose path is short enough for sockets in it."""
    parent = tempfile.gettempdir()
    short_parent = parent if len(parent) < LONGEST_TEMP_DIR else "/tmp"  # noqa: S108
    with tempfile.TemporaryDirectory(
        prefix="d2serve-", dir=short_parent, ignore_cleanup_errors=True
    ) as home:
        yield Path(home)


def link_into_store(model: Path, home: Path) -> Path:
    """Return a link to the model in a store of its own, with a name that TorchServe can take.

    It splits its list of models at commas, and refuses paths with `..` in them.
    """
    suffix = ".mar" if model.is_file() else ""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", model.resolve().name.removesuffix(suffix))
    link = home / "store" / f"{name}{suffix}"
    link.parent.mkdir()
    link.symlink_to(model.resolve())
    return link
