"""The settings that a sweep tries, and a copy of the model that takes them."""

import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from handler.serving_file import ENVIRONMENT_PREFIX, SERVING_FILE
from scripts.errors import CommandError
from scripts.yaml_files import write_yaml

# It would win over what the sweep writes.
THREADS_VARIABLE = f"{ENVIRONMENT_PREFIX}THREADS"


@dataclass(frozen=True)
class ServingSettings:
    """Some keys of model-config.yaml.

    Attributes:
        batch_size: batchSize.
        max_delay_ms: maxBatchDelay.
        workers: minWorkers and maxWorkers.
        threads: handler.threads, of each worker.
    """

    batch_size: int
    max_delay_ms: int
    workers: int
    threads: int

    def as_config(self) -> dict[str, Any]:
        """As model-config.yaml has them."""
        return {
            "batchSize": self.batch_size,
            "maxBatchDelay": self.max_delay_ms,
            "minWorkers": self.workers,
            "maxWorkers": self.workers,
            "handler": {"threads": self.threads},
        }

    def as_yaml(self) -> str:
        """A block to paste into model-config.yaml."""
        return yaml.safe_dump(self.as_config(), sort_keys=False)

    def __str__(self) -> str:
        processes = f"{counted(self.workers, 'worker')} x {counted(self.threads, 'thread')}"
        return f"{processes}, batch {self.batch_size}, {self.max_delay_ms} ms"


def counted(count: int, noun: str) -> str:
    """As in `1 worker` and `2 workers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def grid(
    batch_sizes: Sequence[int],
    delays_ms: Sequence[int],
    workers: Sequence[int],
    threads: int | None = None,
) -> list[ServingSettings]:
    """All combinations; a batch of one waits for nobody, so there one delay will do.

    Args:
        batch_sizes: of requests.
        delays_ms: whole milliseconds.
        workers: how many; those beyond the machine's cores are left out, but for the fewest.
        threads: of each worker; None shares the cores among them.
    """
    cores = os.cpu_count() or 1
    return [
        ServingSettings(batch_size, delay_ms, count, threads or max(1, cores // count))
        for count in sorted(set(workers))
        if count <= max(cores, min(workers))
        for batch_size in sorted(set(batch_sizes))
        for delay_ms in (sorted(set(delays_ms)) if batch_size > 1 else [min(delays_ms)])
    ]


@contextmanager
def unpacked(model: Path) -> Iterator[Path]:
    """A copy of an archive as a folder of its name, which TorchServe serves as well.

    Raises:
        CommandError: it is no archive.
    """
    if not zipfile.is_zipfile(model):
        raise CommandError(f"{model} is not an archive; `make archive` builds one")
    with tempfile.TemporaryDirectory(prefix="d2serve-load-") as folder:
        copy = Path(folder) / model.stem
        with zipfile.ZipFile(model) as archive:
            archive.extractall(copy)
        yield copy


def configure(folder: Path, settings: ServingSettings) -> None:
    """Writes the settings into an unpacked model; its other keys stay."""
    file = folder / SERVING_FILE
    content = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    changed = settings.as_config()
    changed["handler"] = {**content.get("handler", {}), **changed["handler"]}
    write_yaml(file, {**content, **changed})


def check_environment() -> None:
    """Raises CommandError where a variable would win over what the sweep tries."""
    if THREADS_VARIABLE in os.environ:
        raise CommandError(f"{THREADS_VARIABLE} is set and wins over every setting; unset it")
