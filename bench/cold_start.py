"""Times how a worker starts: from its process to ready, and then its first requests.

Archives take turns within each round; each is unpacked once, so the files are in the system's
cache, as they are where a worker starts again. TorchServe's frontend is not in the times.

python -m bench.cold_start model-store/NAME.mar [model-store/OTHER.mar ...] [--rounds 5]
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter

from PIL import Image

SIZE_WH = (640, 480)
REQUESTS = ("first", "second")
# As Linux calls it: what is resident, without what lies in files that are mapped, and at most.
MEMORY = ("VmRSS", "RssAnon", "VmHWM")
COLUMNS = ("ready s", *(f"{name} ms" for name in REQUESTS), "RSS MB", "own MB", "peak MB")

Figures = Mapping[str, float]


def start(folder: Path, environment: Mapping[str, str] = os.environ) -> Figures:
    """Starts a worker on an unpacked archive, with the handler that lies in it.

    Returns:
        By COLUMNS: seconds from the process's start to a loaded worker, milliseconds of its first
        and its second request, its resident memory after them, the part of it that a second worker
        on the same files would need too, and the most it had, in MB.

    Raises:
        subprocess.CalledProcessError: the worker does not start.
    """
    done = subprocess.run(
        [sys.executable, __file__, str(folder), repr(perf_counter())],
        env={**environment, "PYTHONPATH": str(folder), "D2SERVE_DRAIN_SECONDS": "0"},
        stdout=subprocess.PIPE,
        check=True,
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _work(folder: str, started: float) -> Figures:
    """What `start` runs in the new process; imports by hand are the worker's own."""
    from ts.context import Context

    from handler.messages import HttpRequest, Part
    from handler.service import Detectron2Handler

    worker = Detectron2Handler()
    worker.initialize(Context("model", folder, {}, 1, None, "0.12.0"))
    ready_s = perf_counter() - started
    file = io.BytesIO()
    Image.effect_noise(SIZE_WH, 64).convert("RGB").save(file, "JPEG")
    request = HttpRequest({}, (Part("image/jpeg", file.getvalue()),))
    taken_ms = []
    for _ in REQUESTS:
        begun = perf_counter()
        [response] = worker.pipeline.run([request])
        taken_ms.append(1e3 * (perf_counter() - begun))
        if response.status != 200:
            raise RuntimeError(f"the worker answered {response.status}: {response.body!r}")
    status = Path("/proc/self/status").read_text()
    memory_mb = (int(status.partition(f"{name}:")[2].split()[0]) / 1e3 for name in MEMORY)
    return dict(zip(COLUMNS, (ready_s, *taken_ms, *memory_mb), strict=True))


def main(arguments: Sequence[str]) -> int:
    """Prints medians for each archive."""
    parser = argparse.ArgumentParser(description="how a worker starts")
    parser.add_argument("archives", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    figures: dict[Path, list[Figures]] = {archive: [] for archive in given.archives}
    with tempfile.TemporaryDirectory(prefix="d2serve-cold-start-") as temporary:
        folders = {archive: Path(temporary) / archive.stem for archive in figures}
        for archive, folder in folders.items():
            zipfile.ZipFile(archive).extractall(folder)
        for _ in range(given.rounds):
            for archive, folder in folders.items():
                figures[archive].append(start(folder))
    print(f"medians of {given.rounds} starts, load {os.getloadavg()[0]:.1f}")
    print(" " * 24, *(f"{name:>10}" for name in COLUMNS))
    for archive, taken in figures.items():
        medians = (statistics.median(each[name] for each in taken) for name in COLUMNS)
        print(f"{archive.stem:24}", *(f"{median:10.1f}" for median in medians))
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 3 and Path(sys.argv[1]).is_dir():
        print(json.dumps(_work(sys.argv[1], float(sys.argv[2]))))
    else:
        sys.exit(main(sys.argv[1:]))
