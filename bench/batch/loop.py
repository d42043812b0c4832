"""The bare loop: a pipeline without Ray, that writes the same rows to the same kind of files.

Runs in the environment that has Ray, because its versions of torch count; prints JSON.
"""

import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from d2serve.servers.openmp import openmp_settings

IN_FLIGHT = 64


def main(folder: str, output: str, images_per_part: int, threads: int) -> None:
    """Process the images of a folder; prints the time in seconds since 1970 of each part's end."""
    os.environ.update(openmp_settings(os.environ))
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from bench.workloads import pipeline_of
    from d2serve.detector.native import NativeDetector
    from d2serve.servers.ray.batch.inputs import list_images
    from d2serve.servers.ray.batch.rows import response_row, schema
    from d2serve.settings import Settings
    from tests.goldens.cases import TRAINED

    torch.set_num_threads(threads)
    detector = NativeDetector(TRAINED.build(), torch.device("cpu"), Settings())
    pipeline = pipeline_of(detector, "bare", threads)
    paths = list_images(folder).paths
    for response in pipeline.run([_request(path) for path in paths[:8]]):
        assert response.status == 200
    started = time.time()
    ends: list[float] = []
    rows: list[dict[str, Any]] = []
    for path, future in _submitted(pipeline, paths):
        response = future.result()
        rows.append(response_row(path, response.status, response.body))
        if len(rows) == images_per_part or path == paths[-1]:
            table = pa.Table.from_pylist(rows, schema())
            pq.write_table(table, Path(output, f"{len(ends):06}.parquet"), compression="zstd")
            ends.append(time.time())
            rows = []
    print(json.dumps({"started": started, "ends": ends}))


def _submitted(pipeline: Any, paths: tuple[str, ...]) -> "Iterator[tuple[str, Future[Any]]]":
    waiting: deque[tuple[str, Future[Any]]] = deque()
    for path in paths:
        waiting.append((path, pipeline.submit(_request(path))))
        if len(waiting) == IN_FLIGHT:
            yield waiting.popleft()
    yield from waiting


def _request(path: str) -> Any:
    from bench.workloads import jpeg_requests

    [request] = jpeg_requests([Path(path).read_bytes()])
    return request


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
