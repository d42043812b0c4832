"""COCO and JSON Lines files from the parts of a finished job, a part at a time."""

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from d2serve.servers.ray.batch.job import PARTS, Job, part_name, relative_name
from d2serve.servers.ray.batch.storage import Storage

FAILED_FILE = "failed.jsonl"
ROWS_IN_MEMORY = 64
FILES = {"coco": "coco.json", "jsonl": "results.jsonl"}


def read_rows(
    storage: Storage, job: Job, columns: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of all parts, in order; only some columns of them, if given."""
    import pyarrow.parquet as pq

    for part in job.parts():
        name = f"{PARTS}/{part_name(*part)}"
        with storage.open(name) as source, pq.ParquetFile(source) as file:
            for batch in file.iter_batches(ROWS_IN_MEMORY, columns=columns):
                yield from batch.to_pylist()


def write_failed(storage: Storage, job: Job) -> int:
    """List the images that have no result, with their errors; returns their number."""
    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for row in read_rows(storage, job, ("path", "error")):
            if row["error"]:
                count += 1
                yield json.dumps(row, ensure_ascii=False) + "\n"

    _write_lines(storage, FAILED_FILE, lines())
    return count


def export(storage: Storage, job: Job, file_format: str) -> str:
    """Write the results as one file; returns its name.

    Args:
        storage: the job's folder.
        job: a finished job.
        file_format: a key of FILES.
    """
    lines = _coco(storage, job) if file_format == "coco" else _json_lines(storage, job)
    _write_lines(storage, FILES[file_format], lines)
    return FILES[file_format]


def _write_lines(storage: Storage, name: str, lines: Iterable[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        with path.open("w", encoding="utf-8") as file:
            file.writelines(lines)
        storage.upload(name, path)


def _json_lines(storage: Storage, job: Job) -> Iterator[str]:
    for row in read_rows(storage, job):
        yield json.dumps(row, ensure_ascii=False) + "\n"


def _coco(storage: Storage, job: Job) -> Iterator[str]:
    categories = [{"id": index, "name": name} for index, name in enumerate(job.class_names)]
    yield f'{{"info": {{}}, "categories": {json.dumps(categories)},\n"images": ['
    for number, row in enumerate(_good(storage, job), start=1):
        name = relative_name(row["path"], job.input)
        image = {"id": number, "file_name": name, "path": row["path"]}
        image |= {"width": row["width"], "height": row["height"]}
        yield ("," if number > 1 else "") + "\n" + json.dumps(image, ensure_ascii=False)
    yield '],\n"annotations": ['
    identifier = 0
    for number, row in enumerate(_good(storage, job), start=1):
        for found in row["detections"]:
            identifier += 1
            annotation = {"id": identifier, "image_id": number, **_annotation(found, row)}
            yield ("," if identifier > 1 else "") + "\n" + json.dumps(annotation)
    yield "]}\n"


def _good(storage: Storage, job: Job) -> Iterator[dict[str, Any]]:
    return (row for row in read_rows(storage, job) if not row["error"])


def _annotation(found: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    left, top, right, bottom = found["box"]
    width, height = round(right - left, 3), round(bottom - top, 3)
    annotation = {
        "category_id": found["class_index"],
        "bbox": [left, top, width, height],
        "score": found["score"],
        "iscrowd": 0,
        "area": width * height,
    }
    if found["rle"] is not None:
        size = [row["height"], row["width"]]
        annotation["segmentation"] = {"size": size, "counts": found["rle"]}
        annotation["area"] = rle_area(found["rle"])
    elif found["polygons"] is not None:
        annotation["segmentation"] = found["polygons"]
        annotation["area"] = sum(map(_polygon_area, found["polygons"]))
    return annotation | _further_fields(found)


def _further_fields(found: dict[str, Any]) -> dict[str, Any]:
    """The fields of the API's format `coco` that only some models have."""
    fields: dict[str, Any] = {}
    # Parts of an older version lack the last two columns.
    keypoints, surface = found["keypoints"], found.get("densepose")
    if found.get("mask_score") is not None:
        fields["mask_score"] = found["mask_score"]
    if keypoints is not None:
        # COCO's keypoints are pixel indices; the center of a pixel is half a pixel further.
        shifted = ((round(x - 0.5, 3), round(y - 0.5, 3), score) for x, y, score in keypoints)
        fields["keypoints"] = [*chain.from_iterable(shifted)]
    if surface is not None:
        _, _, width, height = surface["box"]
        fields["densepose"] = {"shape_chw": [3, height, width], "labels_uv_str": surface["png"]}
    return fields


def rle_area(counts: str) -> int:
    """Number of pixels of a mask as COCO's compressed RLE.

    Examples:
        >>> rle_area("42102")
        4
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts.encode("ascii"):
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return sum(runs[1::2])


def _polygon_area(points: list[int]) -> float:
    xs, ys = points[::2], points[1::2]
    pairs = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for x1, y1, x2, y2 in pairs)) / 2
