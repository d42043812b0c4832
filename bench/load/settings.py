"""Settings that a sweep tries, and a copy of the model that takes them."""

import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from d2serve.building.packing import write_yaml
from d2serve.errors import CommandError
from d2serve.serving.model_config import ENVIRONMENT_PREFIX, SERVING_FILE

# It would override the sweep's settings.
THREADS_VARIABLE = f"{ENVIRONMENT_PREFIX}THREADS"


@dataclass(frozen=True)
class ServingSettings:
    """batchSize, maxBatchDelay, minWorkers = maxWorkers and handler.threads of model-config.yaml."""

    batch_size: int
    max_delay_ms: int
    workers: int
    threads: int

    def as_config(self) -> dict[str, Any]:
        """Keys of model-config.yaml."""
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
    """Format a count, as in `1 worker` and `2 workers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def grid(
    batch_sizes: Sequence[int],
    delays_ms: Sequence[int],
    workers: Sequence[int],
    threads: int | None = None,
) -> list[ServingSettings]:
    """All combinations, with one delay for batches of one.

    Numbers of workers beyond the machine's cores are left out, except the smallest; without
    `threads`, the workers share the cores.
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
    """Unpack an archive into a temporary folder of its name, which TorchServe serves as well.

    Raises:
        CommandError: it is not an archive, or the environment overrides the sweep's settings.
    """
    if THREADS_VARIABLE in os.environ:
        raise CommandError(f"{THREADS_VARIABLE} is set and overrides the sweep's threads; unset it")
    if not zipfile.is_zipfile(model):
        raise CommandError(f"{model} is not an archive; `make archive` builds one")
    with tempfile.TemporaryDirectory(prefix="d2serve-load-") as folder:
        copy = Path(folder) / model.stem
        with zipfile.ZipFile(model) as archive:
            archive.extractall(copy)
        yield copy


def configure(folder: Path, settings: ServingSettings) -> None:
    """Write the settings into an unpacked model; its other keys stay."""
    file = folder / SERVING_FILE
    content = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    changed = settings.as_config()
    changed["handler"] = {**content.get("handler", {}), **changed["handler"]}
    write_yaml(file, {**content, **changed})
