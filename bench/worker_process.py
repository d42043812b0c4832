"""The pipeline of an archive in a process without a server: its start, its memory, and clients
within the process. Run as a script with an unpacked archive on PYTHONPATH, so that the code in the
archive runs."""

import json
import os
import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any, NamedTuple

# Resident, without mapped files, and at most; names of /proc/self/status.
MEMORY = {"VmRSS": "resident_mb", "RssAnon": "private_mb", "VmHWM": "peak_mb"}
HEADERS = {"content-type": "image/jpeg", "accept": "application/json"}


class Start(NamedTuple):
    """Seconds to a loaded pipeline and of its first two requests, and memory after them."""

    ready_s: float
    first_request_s: float
    second_request_s: float
    resident_mb: float
    private_mb: float
    peak_mb: float


class Run(NamedTuple):
    """Seconds of each request, all images per second, and the peak memory so far."""

    seconds: Sequence[float]
    images_per_s: float
    peak_mb: float


class Worker:
    """A process with a loaded pipeline, which is idle between runs."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process, self._errors = process, errors
        self.start = Start(**self._receive())

    def run(
        self, clients: int, seconds: float, warm_up_s: float = 0.0, image: int | None = None
    ) -> Run:
        """Send requests by `clients` threads of the process, each at least one; those that start
        in the warm-up do not count. They carry all images, or only the one with this index. Raises
        RuntimeError where one is refused."""
        from bench.loadgen.generator import Record
        from bench.loadgen.load import work_in

        assert self._process.stdin
        self._process.stdin.write(json.dumps([clients, seconds, warm_up_s, image]) + "\n")
        self._process.stdin.flush()
        found = self._receive()
        records = [Record(done - taken, done, 200, True) for done, taken in found["sent"]]
        rate = work_in(seconds, records) / seconds if seconds else 0.0
        due = [taken for done, taken in found["sent"] if done >= taken]
        return Run(due, rate, found["peak_mb"])

    def _receive(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"the worker failed:\n{self._errors.read().strip()}")
        return json.loads(line)


@contextmanager
def running_worker(
    folder: Path, images: Sequence[Path], python: Path = Path(sys.executable)
) -> Iterator[Worker]:
    """Load an unpacked archive in a process of its own, whose clients send JPEG files; `python` is
    that of its environment. Raises RuntimeError where it does not start, or refuses an image."""
    from d2serve.servers.openmp import openmp_settings

    command = [str(python), __file__, json.dumps([str(folder), time.time(), *map(str, images)])]
    variables = {**openmp_settings(os.environ), **os.environ, "PYTHONPATH": str(folder)}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        TemporaryFile("w+") as errors,
        subprocess.Popen(command, env=variables, stderr=errors, **pipes) as process,
    ):
        try:
            yield Worker(process, errors)
        finally:
            process.kill()


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack an archive; returns the folder."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    return folder


def start_of(folder: Path, images: Sequence[Path]) -> Start:
    """Start a worker and end it."""
    with running_worker(folder, images) as worker:
        return worker.start


def _work(folder: str, started: float, *images: str) -> Iterator[dict[str, Any]]:
    """Figures of the start, and then of each run that stdin demands."""
    import torch

    from d2serve.messages import HttpRequest, Part
    from d2serve.serving.loading import load_pipeline

    pipeline = load_pipeline(Path(folder), torch.device("cpu"), "model")
    ready_s = time.time() - started
    bodies = [Path(each).read_bytes() for each in images]
    # In shuffled rounds, as the load generator sends them.
    draw = random.Random(0)  # noqa: S311
    order = [index for _ in range(100) for index in draw.sample(range(len(bodies)), len(bodies))]
    requests = [HttpRequest(HEADERS, (Part("image/jpeg", body),)) for body in bodies]

    def send(number: int, image: int | None = None) -> float:
        start = time.perf_counter()
        index = order[number % len(order)] if image is None else image
        [response] = pipeline.run([requests[index]])
        if response.status != 200:
            raise RuntimeError(f"an image received {response.status}: {response.body!r}")
        return time.perf_counter() - start

    first = {"first_request_s": send(0), "second_request_s": send(1), "ready_s": ready_s}
    yield {**first, **_memory_mb()}
    for line in sys.stdin:
        clients, seconds, warm_up_s, image = json.loads(line)
        sent = _closed_loop(partial(send, image=image), clients, seconds, warm_up_s)
        yield {"sent": sent, "peak_mb": _memory_mb()["peak_mb"]}


def _closed_loop(
    send: Callable[[int], float], clients: int, seconds: float, warm_up_s: float
) -> list[tuple[float, float]]:
    """Send from threads, in each at least once; when each request was done, in seconds from the end
    of the warm-up, and how long it took."""
    numbers, start = count(), time.perf_counter() + warm_up_s

    def client(_: int) -> list[tuple[float, float]]:
        sent: list[tuple[float, float]] = []
        while not sent or time.perf_counter() - start < seconds:
            latency = send(next(numbers))
            sent.append((time.perf_counter() - start, latency))
        return sent

    with ThreadPoolExecutor(clients) as pool:
        return [each for own in pool.map(client, range(clients)) for each in own]


def _memory_mb() -> dict[str, float]:
    status = Path("/proc/self/status").read_text()
    kilobytes = {name: status.partition(f"{key}:")[2].split()[0] for key, name in MEMORY.items()}
    return {name: int(size) / 1e3 for name, size in kilobytes.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Start pipelines of archives alternately, and write cold-start.json, .md and .png. Archives
    are unpacked before, so their files are in the system's cache, as when a worker restarts."""
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
            measures[str(archive)] = partial(start_of, folder, [image])
        results = results_of(alternate(measures, given.rounds))
    write_results(given.output / "cold-start", results)
    return 0


def results_of(starts: Mapping[str, Sequence[Start]]) -> list[Any]:
    """A result of the comparison of archives for each figure."""
    from bench.comparison import Result, Series

    results = []
    for field in Start._fields:
        name, _, unit = field.rpartition("_")
        figures = {each: tuple(getattr(one, field) for one in own) for each, own in starts.items()}
        series = tuple(Series(each, values) for each, values in figures.items())
        results.append(Result("cold start", name, "", 1, "", series, unit.replace("mb", "MB")))
    return results


if __name__ == "__main__":
    for figures in _work(*json.loads(sys.argv[1])):
        print(json.dumps(figures), flush=True)
