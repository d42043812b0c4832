"""Run a batch job on Ray Data."""

import logging
import os
import re
import secrets
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from d2serve.errors import CommandError
from d2serve.servers.ray.archives import local_folder
from d2serve.servers.ray.batch.actors import plan_actors
from d2serve.servers.ray.batch.inputs import list_images
from d2serve.servers.ray.batch.job import Job, checksum_of, clean, open_job, unfinished
from d2serve.servers.ray.batch.storage import S3, Storage, absolute
from d2serve.servers.ray.batch.worker import BatchWorker, Resources
from d2serve.servers.ray.private_ray import short_folder, start_ray
from d2serve.servers.ray.signals import kept_signal_handlers
from d2serve.serving.cpu import available_cpus
from d2serve.serving.integrity import SUMS_FILE

OBJECT_STORE_BYTES = 150_000_000
# Parts of one task of Ray Data; images are submitted ahead across their ends.
PARTS_PER_TASK = 4
REPORT_S = 5.0
# The last line of a traceback.
ERROR_LINE = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception)(?:\(\w+\))?: (?P<message>.+)")


@dataclass(frozen=True)
class BatchConfig:
    """The options of `d2serve batch`; see its help."""

    model: str
    input: str
    output: str
    masks: str = "rle"
    overlays: str = ""
    score_threshold: float | None = None
    address: str = ""
    actors: int = 0
    gpus_per_actor: float | None = None


def run_batch(config: BatchConfig, report: Callable[[str], None]) -> Job:
    """Process all images that have no result yet.

    Args:
        config: the options.
        report: receives lines about the progress.

    Raises:
        CommandError: the input is empty, or the output belongs to another job.
        CommandError: the model cannot be loaded on a node, or the cluster is too small.
        ArchiveError: the archive is missing or damaged.
    """
    job = prepare(config, report)
    storage = Storage(config.output)
    parts = unfinished(storage, job)
    if len(parts) < len(job.parts()):
        report(
            f"resuming: {len(job.parts()) - len(parts)} of {len(job.parts())} parts are finished"
        )
    if parts:
        with _connected(config.address):
            _process(config, job, parts, report)
    clean(storage)
    return job


def prepare(config: BatchConfig, report: Callable[[str], None]) -> Job:
    """List the images, and start or resume the job.

    Raises:
        CommandError, ArchiveError: see `run_batch`.
    """
    from d2serve.metadata import CLASSES_FILE, read_class_names

    folder = local_folder(config.model)
    source, output = absolute(config.input), absolute(config.output)
    overlays = absolute(config.overlays) if config.overlays else ""
    for option, written in (("--output", output), ("--overlays", overlays)):
        if written == source:
            raise CommandError(f"{option} is the same folder as --input, {source}; use another one")
    listing = list_images(config.input, (output, *filter(None, [overlays])))
    names = read_class_names(folder / "model" / CLASSES_FILE).things
    checksum = checksum_of(folder / SUMS_FILE)
    wanted = Job(checksum, source, config.masks, config.score_threshold, overlays, names)
    job = open_job(Storage(config.output), wanted, listing.paths)
    report(
        f"{len(listing.paths)} images; skipped {listing.skipped} other files and "
        f"{listing.repeated} repeated paths"
    )
    return job


def _process(
    config: BatchConfig, job: Job, parts: list[tuple[int, int]], report: Callable[[str], None]
) -> None:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    # Every finished part is reported at once.
    context.target_max_block_size = 1
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    actors = plan_actors(nodes, config.actors, config.gpus_per_actor)
    items = [{"list": number, "place": place} for number, place in parts]
    tasks = -(-len(items) // PARTS_PER_TASK)
    count = min(actors.count, tasks)
    dataset = ray.data.from_items(items, override_num_blocks=max(tasks, 1)).map_batches(
        BatchWorker,
        batch_size=None,
        compute=ActorPoolStrategy(size=count),
        num_cpus=actors.cpus,
        num_gpus=actors.gpus,
        fn_constructor_args=(
            config.model if config.model.startswith(S3) else absolute(config.model),
            absolute(config.output),
            job,
            uuid.uuid4().hex,
            Resources(actors.cpus, has_gpu=actors.gpus > 0, shares_weights=count > 1),
        ),
    )
    sizes = {part: _size(job, part) for part in parts}
    try:
        _follow(dataset.iter_rows(), sum(sizes.values()), report)
    except ray.exceptions.RayError as error:
        raise CommandError(f"the job has stopped: {cause_of(str(error))}") from error


def cause_of(text: str) -> str:
    """The last error that a traceback of Ray contains, in one line.

    Examples:
        >>> cause_of("The actor died: ray::Worker()\\n  File 'a.py'\\na.b.ArchiveError: damaged")
        'damaged'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [match for line in lines if (match := ERROR_LINE.match(line))]
    return found[-1]["message"] if found else lines[0]


def _size(job: Job, part: tuple[int, int]) -> int:
    number, place = part
    return min(job.images_per_part, job.lists[number] - place * job.images_per_part)


def _follow(rows: Any, total: int, report: Callable[[str], None]) -> None:
    """Report progress with rate and time left, every few seconds."""
    done, failed, start, reported = 0, 0, 0.0, 0.0
    first = 0
    for row in rows:
        now = time.monotonic()
        if row["failure"]:
            raise CommandError(f"a node cannot process images: {row['failure']}")
        done, failed = done + row["images"], failed + row["failed"]
        if not start:
            start, first = now, done
        if now - reported >= REPORT_S or done == total:
            reported = now
            rate = (done - first) / (now - start) if now > start else 0.0
            left = f"{rate:.1f} images/s, {(total - done) / rate:.0f} s left" if rate else ""
            report(f"{done} of {total} images, {failed} failed {left}".rstrip())


@contextmanager
def _quiet() -> Iterator[None]:
    """Discard what native code writes to stderr while the block runs."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connect to a cluster, or run a Ray of this machine while the block runs."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's own messages would hide the progress; what ends the job is reported.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if not address:
        # Ray listens on all interfaces, and reads its variables when it is imported.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    with short_folder("d2b-") as home:
        try:
            with _quiet():
                if address:
                    with kept_signal_handlers():
                        ray.init(address=address, **quiet)
                else:
                    start_ray(
                        home,
                        cpus=available_cpus(),
                        object_store_bytes=OBJECT_STORE_BYTES,
                        **quiet,
                    )
            yield
        finally:
            ray.shutdown()
            sys.stderr.flush()
