"""Time and memory of a worker's start, and of its requests, in a process without TorchServe. Run as
a script with an unpacked archive on PYTHONPATH, so that the code in the archive runs."""

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

# Resident, without mapped files, and at most; names of /proc/self/status.
MEMORY = {"VmRSS": "resident_mb", "RssAnon": "private_mb", "VmHWM": "peak_mb"}


class Run(NamedTuple):
    """Seconds to a loaded worker, of the first two batches and of the others, and memory."""

    batch: int
    seconds: Sequence[float]
    ready_s: float
    first_request_s: float
    second_request_s: float
    resident_mb: float
    private_mb: float
    peak_mb: float

    @property
    def images_per_s(self) -> float:
        """Over all batches but the first two."""
        return self.batch * len(self.seconds) / sum(self.seconds)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack an archive; returns the folder."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    return folder


def run_worker(folder: Path, images: Sequence[Path], batch: int = 1, seconds: float = 0.0) -> Run:
    """Run batches of JPEG files for `seconds`, at least one, after two others. Raises RuntimeError
    where the worker does not start, or refuses an image."""
    from d2serve.servers.torchserve.launcher.config import OPENMP_SETTINGS

    given = (str(folder), time.time(), batch, seconds, list(map(str, images)))
    command = [sys.executable, __file__, json.dumps(given)]
    own = {"PYTHONPATH": str(folder), "D2SERVE_DRAIN_SECONDS": "0"}
    threads = {} if OPENMP_SETTINGS.keys() & os.environ.keys() else OPENMP_SETTINGS
    variables = {**os.environ, **threads, **own}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the worker of {folder} failed:\n{done.stderr.strip()}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def _run(
    folder: str, started: float, batch: int, seconds: float, images: Sequence[str]
) -> dict[str, Any]:
    from ts.context import Context

    from d2serve.messages import HttpRequest, Part
    from d2serve.servers.torchserve.handler import Detectron2Handler

    worker = Detectron2Handler()
    worker.initialize(Context("model", folder, {}, 1, None, "0.12.0"))
    ready_s = time.time() - started
    headers = {"content-type": "image/jpeg", "accept": "application/json"}
    parts = [Part("image/jpeg", Path(image).read_bytes()) for image in images]
    requests = [HttpRequest(headers, (part,)) for part in parts]
    taken: list[float] = []
    while len(taken) < 3 or sum(taken[2:]) < seconds:
        first = len(taken) * batch
        sent = [requests[(first + index) % len(requests)] for index in range(batch)]
        start = time.perf_counter()
        responses = worker.pipeline.run(sent)
        taken.append(time.perf_counter() - start)
        for response in responses:
            if response.status != 200:
                raise RuntimeError(f"an image received {response.status}: {response.body!r}")
    status = Path("/proc/self/status").read_text()
    figures = {"first_request_s": taken[0], "second_request_s": taken[1], "ready_s": ready_s}
    kilobytes = {name: status.partition(f"{key}:")[2].split()[0] for key, name in MEMORY.items()}
    memory = {name: int(size) / 1e3 for name, size in kilobytes.items()}
    return {"batch": batch, "seconds": taken[2:], **figures, **memory}


def main(arguments: Sequence[str] | None = None) -> int:
    """Start workers of archives alternately, and write cold-start.json, .md and .png. Archives are
    unpacked before, so their files are in the system's cache, as when a worker restarts."""
    from bench.arguments import parser_of
    from bench.comparison import alternate, write_results
    from bench.workloads import SIZES_WH, encode_image, image_of

    parser = parser_of("cold-start", main.__doc__)
    parser.add_argument("archives", type=Path, nargs="+", help="to compare")
    parser.add_argument("--rounds", type=int, default=5, help="starts of each archive")
    given = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="d2serve-cold-start-") as temporary:
        image = Path(temporary) / "image.jpg"
        image.write_bytes(encode_image(image_of(SIZES_WH[0])))
        measures = {}
        for index, archive in enumerate(given.archives):
            folder = unpack(archive, Path(temporary) / f"{index}")
            measures[str(archive)] = partial(run_worker, folder, [image])
        results = results_of(alternate(measures, given.rounds))
    write_results(given.output / "cold-start", results)
    return 0


def results_of(runs: Mapping[str, Sequence[Run]]) -> list[Any]:
    """A result of the comparison of archives for each figure."""
    from bench.comparison import Result, Series

    results = []
    for field in Run._fields[2:]:
        name, _, unit = field.rpartition("_")
        figures = {each: tuple(getattr(run, field) for run in own) for each, own in runs.items()}
        series = tuple(Series(each, values) for each, values in figures.items())
        results.append(Result("cold start", name, "", 1, "", series, unit.replace("mb", "MB")))
    return results


if __name__ == "__main__":
    print(json.dumps(_run(*json.loads(sys.argv[1]))))
