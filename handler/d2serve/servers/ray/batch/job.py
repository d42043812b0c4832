"""A job and its progress: settings, list of images, and the parts that are finished.

The images are divided into parts of a fixed order when the job starts. A part is one file with a
fixed name, so that the names of the files are the record of finished work, and work that is done
twice replaces its own result.
"""

import hashlib
import json
import posixpath
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from d2serve.errors import CommandError
from d2serve.servers.ray.batch.storage import PARTIAL, S3, Storage

JOB_FILE = "job.json"
PARTS, LISTS, STARTED = "parts", "images", "started"
IMAGES_PER_LIST = 1_000_000
MAX_IMAGES_PER_PART = 1024
# Minimum number of parts of a larger job, which repeats little after an interruption.
MIN_PARTS = 100
MIN_IMAGES_PER_PART = 16


@dataclass(frozen=True)
class Job:
    """The content of job.json: everything that determines the rows of a job.

    Attributes:
        model: SHA-256 of the archive's list of checksums.
        input: absolute path or URI of the images.
        masks: `rle`, `polygon` or `none`.
        score_threshold: minimum score; None for the archive's.
        overlays: absolute path of the folder for drawn images; empty for none.
        class_names: of the model, in the order of the class indices.
        images_per_part: maximum number of images in a part.
        lists: number of images in each list of images, in order.
    """

    model: str
    input: str
    masks: str
    score_threshold: float | None
    overlays: str
    class_names: tuple[str, ...]
    images_per_part: int = 0
    lists: tuple[int, ...] = field(default=())

    def parts(self) -> list[tuple[int, int]]:
        """The parts, each by the number of its list and its place in that."""
        size = self.images_per_part
        return [
            (number, place)
            for number, count in enumerate(self.lists)
            for place in range(-(-count // size))
        ]


def part_name(number: int, place: int) -> str:
    """The file name of a part."""
    return f"part-{number:05}-{place:06}.parquet"


def list_name(number: int) -> str:
    """The file of a list of images."""
    return f"{LISTS}/list-{number:05}.parquet"


def relative_name(path: str, source: str) -> str:
    """The name of an image in COCO files and of its overlay.

    Args:
        path: of the image.
        source: the job's input; images of a manifest are named from its folder.

    Examples:
        >>> relative_name("/data/in/a/1.jpg", "/data/in")
        'a/1.jpg'
        >>> relative_name("/data/in/a/1.jpg", "/data/in/list.txt")
        'a/1.jpg'
        >>> relative_name("s3://bucket/a/../1.jpg", "/data/list.txt")
        'bucket/a/1.jpg'
    """
    source = source.rstrip("/")
    for folder in (f"{source}/", f"{posixpath.dirname(source)}/"):
        if path.startswith(folder):
            path = path.removeprefix(folder)
            break
    parts = path.removeprefix(S3).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def checksum_of(sums: Path) -> str:
    """SHA-256 of a model, by the checksums of its files."""
    return hashlib.sha256(sums.read_bytes()).hexdigest()


def open_job(storage: Storage, wanted: Job, paths: tuple[str, ...]) -> Job:
    """Start a job, or resume the one in the folder, with images that were added since.

    A job without results starts again, also with other options.

    Raises:
        CommandError: the folder has a job with another model or other options.
    """
    if storage.names(PARTS):
        try:
            content = json.loads(storage.read(JOB_FILE))
        except FileNotFoundError as error:
            raise CommandError(
                f"--output {storage.root} has results without {JOB_FILE}; use another folder"
            ) from error
        job = _checked(content, wanted)
    else:
        size = min(MAX_IMAGES_PER_PART, max(MIN_IMAGES_PER_PART, len(paths) // MIN_PARTS))
        job = Job(**{**asdict(wanted), "images_per_part": size})
    known = {path for number in range(len(job.lists)) for path in read_list(storage, number)}
    new = [path for path in paths if path not in known]
    counts = list(job.lists)
    for start in range(0, len(new), IMAGES_PER_LIST):
        chosen = new[start : start + IMAGES_PER_LIST]
        _write_list(storage, len(counts), chosen, job.images_per_part)
        counts.append(len(chosen))
    job = Job(**{**asdict(job), "lists": tuple(counts)})
    storage.write(JOB_FILE, json.dumps(asdict(job), indent=1).encode())
    return job


def unfinished(storage: Storage, job: Job) -> list[tuple[int, int]]:
    """The parts without a file."""
    done = storage.names(PARTS)
    return [part for part in job.parts() if part_name(*part) not in done]


def clean(storage: Storage) -> None:
    """Remove the files that interrupted runs have left."""
    for folder in ("", PARTS, LISTS, STARTED):
        for name in storage.names(folder):
            if folder == STARTED or name.endswith(PARTIAL):
                storage.remove(posixpath.join(folder, name))


def read_list(storage: Storage, number: int, place: int | None = None) -> list[str]:
    """The paths of a list of images, or those of one of its parts."""
    import pyarrow.parquet as pq

    # Only the row group of the part is read.
    with storage.open(list_name(number)) as source, pq.ParquetFile(source) as file:
        table = file.read() if place is None else file.read_row_group(place)
    paths: list[str] = table["path"].to_pylist()
    return paths


def _write_list(storage: Storage, number: int, paths: list[str], size: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"path": pa.array(paths, pa.string())}), sink, row_group_size=size)
    storage.write(list_name(number), sink.getvalue().to_pybytes())


def _checked(content: dict[str, Any], wanted: Job) -> Job:
    for name in ("model", "input", "masks", "score_threshold", "overlays"):
        received, first = getattr(wanted, name), content.get(name)
        if received != first:
            raise CommandError(
                f"{name} is {received!r}, but the job in --output began with {first!r}; use the "
                "same to resume it, or another --output"
            )
    lists = {name: tuple(content[name]) for name in ("class_names", "lists")}
    return Job(**{**content, **lists})
