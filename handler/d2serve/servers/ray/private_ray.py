"""A Ray of this machine alone, with its files in a short folder."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d2serve.servers.ray.signals import kept_signal_handlers

# Unix sockets are deep below it, and their paths have at most 97 characters for HAProxy.
SHORT_FOLDER = "/tmp"  # noqa: S108
LONGEST_FOLDER = 10


@contextmanager
def short_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder whose path is short enough for the sockets of Ray and HAProxy.

    Args:
        prefix: start of the folder's name, of 4 characters.
    """
    folder = tempfile.gettempdir()
    parent = folder if len(folder) <= LONGEST_FOLDER else SHORT_FOLDER
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as path:
        yield Path(path)


def start_ray(home: Path, *, cpus: int, object_store_bytes: int, **options: Any) -> None:
    """Start a Ray, without the signal handlers that it installs; `ray.shutdown` ends it.

    Args:
        home: a folder of `short_folder`.
        cpus: number of CPUs that tasks and actors can occupy.
        object_store_bytes: size of the object store.
        options: further arguments of `ray.init`.
    """
    import ray

    with kept_signal_handlers():
        ray.init(
            address="local",
            num_cpus=cpus,
            object_store_memory=object_store_bytes,
            include_dashboard=False,
            _temp_dir=str(home / "ray"),
            **options,
        )
