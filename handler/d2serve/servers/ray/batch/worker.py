"""The actor of a batch job: reads images, runs them through the pipeline and writes parts."""

import logging
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from d2serve.errors import CommandError, D2ServeError, DeviceLostError, RequestError
from d2serve.messages import HttpRequest, Part
from d2serve.servers.openmp import openmp_settings
from d2serve.servers.ray.archives import local_folder
from d2serve.servers.ray.batch.attempts import Attempts
from d2serve.servers.ray.batch.job import PARTS, Job, part_name, read_list, relative_name
from d2serve.servers.ray.batch.rows import failed_row, response_row, schema
from d2serve.servers.ray.batch.storage import S3, Storage

if TYPE_CHECKING:
    # torch reads OpenMP's settings from the environment when it is imported.
    from d2serve.serving.requests import HttpResponse

logger = logging.getLogger(__name__)
OPENMP_THREADS = "OMP_NUM_THREADS"
READERS = 4
# Images of the actor that are read, decoded or wait for the network, in batches of the network.
BATCHES_IN_FLIGHT = 4
MIN_IN_FLIGHT = 16
# Suffixes whose overlays keep the name of their image; others get .jpg behind it.
DRAWN_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}
JPEG = "image/jpeg"
CRASHED = {
    "code": "internal",
    "message": "the process ended while it processed this image",
    "hint": "process it alone and read the log of Ray's worker; a smaller image may succeed",
}


class Responses(NamedTuple):
    """The responses to one image: its detections and, if requested, the image with them drawn."""

    detections: "Future[HttpResponse]"
    drawn: "Future[HttpResponse] | None"


class Image(NamedTuple):
    """An image of a part; without `reading` it has crashed a process before."""

    part: tuple[int, int]
    path: str
    reading: "Future[Responses] | None"
    is_last: bool


class Resources(NamedTuple):
    """The part of a node that an actor uses.

    Attributes:
        cpus: number of CPUs that its threads use.
        has_gpu: whether the network runs on a GPU.
        shares_weights: whether there are several actors, which share one copy of the weights.
    """

    cpus: int
    has_gpu: bool
    shares_weights: bool


class BatchWorker:
    """A process with one model; Ray Data calls it with the numbers of parts.

    Args:
        archive: path on each node, or s3:// URI, of the archive.
        output: folder of the job.
        job: the job.
        run: identifies the run of the command.
        resources: what it may use.
    """

    def __init__(self, archive: str, output: str, job: Job, run: str, resources: Resources) -> None:
        self.failure = ""
        try:
            self._load(archive, output, job, run, resources)
        # Exceptions of constructors would reach the user as several tracebacks of Ray.
        except (D2ServeError, RuntimeError) as error:
            logger.exception("the model cannot be loaded")
            self.failure = getattr(error, "message", None) or str(error)

    def _load(self, archive: str, output: str, job: Job, run: str, resources: Resources) -> None:
        # Ray sets the number of threads to the CPUs of the actor, also where a GPU computes.
        os.environ.pop(OPENMP_THREADS, None)
        os.environ.update(openmp_settings(os.environ))
        import torch

        from d2serve.serving.loading import load_pipeline

        device = torch.device("cuda", 0) if resources.has_gpu else torch.device("cpu")
        overrides = {
            "threads": min(resources.cpus, torch.get_num_threads()),
            "decode_threads": resources.cpus,
            "longest_wait_seconds": 0,
            "request_log": False,
        }
        self.pipeline = load_pipeline(
            local_folder(archive),
            device,
            "batch",
            server_forms_batches=True,
            shares_weights=resources.shares_weights,
            overrides=overrides,
        )
        self.job, self.storage = job, Storage(output)
        self.attempts = Attempts(self.storage, run)
        self.overlays = Storage(job.overlays) if job.overlays else None
        self.query = {"masks": job.masks}
        if job.score_threshold is not None:
            self.query["score_threshold"] = str(job.score_threshold)
        try:
            self.pipeline.stages.option_reader.read(self.query)
        except RequestError as error:
            raise CommandError(f"{error.message}; {error.hint}") from error
        batch = self.pipeline.settings.images_per_forward
        self.in_flight = max(MIN_IN_FLIGHT, BATCHES_IN_FLIGHT * batch)
        self.readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Process parts; yields the numbers of images and failed images of each.

        Where the model cannot be loaded, yields one row with the reason.
        """
        if self.failure:
            yield {"images": [0], "failed": [0], "failure": [self.failure]}
            return
        parts = list(zip(batch["list"].tolist(), batch["place"].tolist(), strict=True))
        names = self.storage.names(PARTS)
        done = [part for part in parts if part_name(*part) in names]
        # Ray, which runs a task again after a crash, expects the same output in the same order.
        for part in done:
            yield self._counted(part)
        rows: list[dict[str, Any]] = []
        for image in self._stream(part for part in parts if part not in done):
            rows.append(self._row(image))
            if image.is_last:
                self._write(image.part, rows)
                yield _count(rows)
                rows = []

    def _stream(self, parts: Iterator[tuple[int, int]]) -> Iterator[Image]:
        """The images of all parts in order, submitted ahead across the ends of parts."""
        waiting: deque[Image] = deque()
        for part in parts:
            paths = read_list(self.storage, *part)
            attempt = self.attempts.start(part_name(*part))
            for place, path in enumerate(paths):
                reading = None
                if attempt.is_alone:
                    while waiting:
                        yield waiting.popleft()
                    self.attempts.process_alone(part_name(*part), attempt, place)
                if place not in attempt.crashed:
                    reading = self.readers.submit(self._submit, path)
                waiting.append(Image(part, path, reading, place == len(paths) - 1))
                if attempt.is_alone or len(waiting) >= self.in_flight:
                    yield waiting.popleft()
        yield from waiting

    def _submit(self, path: str) -> Responses:
        content_type = "application/x-npy" if path.lower().endswith(".npy") else JPEG
        part = Part(content_type, _read(path))
        headers = {"content-type": content_type}
        drawn = None
        if self.overlays:
            headers_drawn = headers | {"accept": _drawn_type(path)}
            drawn = self.pipeline.submit(HttpRequest(headers_drawn, (part,), self.query))
        request = HttpRequest(headers, (part,), self.query)
        return Responses(self.pipeline.submit(request), drawn)

    def _row(self, image: Image) -> dict[str, Any]:
        if image.reading is None:
            return failed_row(image.path, CRASHED)
        try:
            responses = image.reading.result()
            response = responses.detections.result()
            drawn = responses.drawn.result() if responses.drawn else None
        except OSError as error:
            code = "not_found" if isinstance(error, FileNotFoundError) else "unreadable"
            message = f"the file cannot be read: {error.strerror or error}"
            hint = "check its path and permissions, on each node"
            return failed_row(image.path, {"code": code, "message": message, "hint": hint})
        except DeviceLostError:
            logger.critical("the device is lost; Ray starts the actor again", exc_info=True)
            os._exit(1)
        row = response_row(image.path, response.status, response.body)
        if self.overlays and drawn and drawn.status == 200 and not row.get("error"):
            self.overlays.write(overlay_name(image.path, self.job.input), drawn.body)
        return row

    def _counted(self, part: tuple[int, int]) -> dict[str, Any]:
        """The result of a part that is finished."""
        import pyarrow.parquet as pq

        with self.storage.open(f"{PARTS}/{part_name(*part)}") as source:
            return _count(pq.read_table(source, columns=["error"]).to_pylist())

    def _write(self, part: tuple[int, int], rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema()), sink, compression="zstd")
        self.storage.write(f"{PARTS}/{part_name(*part)}", sink.getvalue().to_pybytes())
        self.attempts.end(part_name(*part))


def overlay_name(path: str, source: str) -> str:
    """The name of an image's overlay, with the subfolders that it has in the input.

    Examples:
        >>> overlay_name("/in/a/1.PNG", "/in"), overlay_name("/in/a/1.webp", "/in")
        ('a/1.PNG', 'a/1.webp.jpg')
    """
    name = relative_name(path, source)
    return name if _suffix(name) in DRAWN_TYPES else f"{name}.jpg"


def _drawn_type(path: str) -> str:
    return DRAWN_TYPES.get(_suffix(path), JPEG)


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _count(rows: list[dict[str, Any]]) -> dict[str, Any]:
    failed = sum(bool(row.get("error")) for row in rows)
    return {"images": [len(rows)], "failed": [failed], "failure": [""]}


def _read(path: str) -> bytes:
    folder, _, name = path.rpartition("/")
    if path.startswith(S3):
        return Storage(folder).read(name)
    with open(path, "rb") as file:  # noqa: PTH123 (faster than Path for many small files)
        return file.read()
