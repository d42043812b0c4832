"""Memory of a TorchServe's only worker with several clients, beside that of the bare model: the
peak of a process that loads the checkpoint and runs as large a batch. Then the peak of a pipeline
without a server that gets several requests with images of 50 MP at the same time."""

import bisect
import resource
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bench.arguments import parser_of, whole
from bench.loadgen.client import Group, Request
from bench.loadgen.generator import ClosedLoop, Plan, Recording, generate
from bench.plots import Line, LinePanel
from bench.processes import WORKER, sampling
from bench.report import Table, progress, write_report
from bench.worker_process import running_worker, unpack
from bench.workloads import (
    JPEG,
    R50_FPN,
    SIZES_WH,
    Scale,
    checkpoint_of,
    encode_image,
    image_of,
    size_text,
)
from d2serve.building.archive import DEFAULT_MODEL_CONFIG, ONE_WORKER, build_archive
from d2serve.errors import CommandError
from d2serve.servers.torchserve.launcher.processes import living_members
from d2serve.servers.torchserve.launcher.server import Server, running_server
from tests.goldens.cases import TRAINED, GoldenModel

MODELS = {model.name: model for model in (R50_FPN, TRAINED)}
LOGS = Path("logs", "bench-memory")
# Number of completed requests, and resident bytes of the worker.
Sample = tuple[int, int]
# Just below the default limit on the pixels of an image.
LARGE_WH, QUICK_WH = (8160, 6120), (1600, 1200)
LARGE_CLIENTS = 8
COLUMNS = ("memory", "MB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write memory.json, .md and .png."""
    parser = parser_of("memory", __doc__)
    parser.add_argument("--model", choices=MODELS, default=R50_FPN.name, help="to serve")
    parser.add_argument("--requests", type=whole, default=500, help="to send")
    parser.add_argument("--clients", type=whole, default=4, help="of the closed loop")
    parser.add_argument("--only-large", action="store_true", help="only the images of 50 MP")
    parser.add_argument("--quick", action="store_true", help="smaller images: a trial")
    given = parser.parse_args(arguments)
    model, threads = MODELS[given.model], torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="d2serve-memory-") as temporary:
        folder = Path(temporary)
        handler = {**DEFAULT_MODEL_CONFIG["handler"], "threads": threads}
        files = (model.config, checkpoint_of(model, folder), folder / "bench.mar")
        archive = build_archive(*files, model_config={"handler": handler, **ONE_WORKER})
        run = Measured({}, [], [])
        if not given.only_large:
            measure_clients(model, archive, given.requests, given.clients, run)
        measure_large(model, archive, folder, QUICK_WH if given.quick else LARGE_WH, run)
    write_report(given.output / "memory", run.tables, run.data, run.panels)
    return 0


class Measured(NamedTuple):
    """The content of the report."""

    data: dict[str, Any]
    tables: list[Table]
    panels: list[LinePanel]


def measure_clients(
    model: GoldenModel, archive: Path, requests: int, clients: int, run: Measured
) -> None:
    """Measure TorchServe's worker with several clients, and the bare model."""
    batch, threads = min(clients, int(DEFAULT_MODEL_CONFIG["batchSize"])), torch.get_num_threads()
    progress("the bare model")
    bare = bare_peak(model, batch, threads)
    with running_server(archive, log_dir=LOGS) as server:
        progress(f"{requests} requests")
        samples = worker_samples(server, encode_image(image_of(SIZES_WH[0])), requests, clients)
    rows = rows_of(bare, samples, requests)
    title = f"{model.name}: {requests} requests of {clients} clients, batch {batch}"
    run.data.update({"bare": bare, "samples": samples, "table": dict(rows)})
    run.tables.append(Table(title, COLUMNS, rows))
    lines = [Line("the worker", [done for done, _ in samples], [size / 1e6 for _, size in samples])]
    levels = {"the bare model's peak": bare / 1e6, "1.3 times that": 1.3 * bare / 1e6}
    run.panels.append(LinePanel(title, "requests done", "resident MB", lines, levels=levels))


def measure_large(
    model: GoldenModel, archive: Path, folder: Path, size_wh: tuple[int, int], run: Measured
) -> None:
    """Measure a pipeline without a server that gets several large images at the same time."""
    progress(f"{LARGE_CLIENTS} requests of {size_text(size_wh)}")
    peaks = large_peaks_mb(archive, folder, size_wh)
    rows = [(name, f"{peak:,.0f}") for name, peak in peaks.items()]
    title = f"{model.name}: {LARGE_CLIENTS} requests of {size_text(size_wh)} at the same time, JSON"
    run.data["large"] = peaks
    run.tables.append(Table(title, COLUMNS, rows))


def large_peaks_mb(archive: Path, folder: Path, size_wh: tuple[int, int]) -> dict[str, float]:
    """Peak resident memory in MB of a process with the pipeline: after single requests with a large
    JPEG, and after several clients have sent one each at the same time, once and again."""
    image = folder / "large.jpg"
    image.write_bytes(encode_image(image_of(size_wh)))
    with running_worker(unpack(archive, folder / "unpacked"), [image]) as worker:
        peaks = {"single requests, peak": worker.start.peak_mb}
        for times in ("once", "again"):
            run = worker.run(clients=LARGE_CLIENTS, seconds=0.0)
            peaks[f"{LARGE_CLIENTS} requests, {times}, peak"] = run.peak_mb
    return peaks


def bare_peak(model: GoldenModel, batch: int, threads: int) -> int:
    """Peak resident bytes of a process with the model alone."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_run_bare, model, batch, threads).result()


def _run_bare(model: GoldenModel, batch: int, threads: int) -> int:
    torch.set_num_threads(threads)
    detector = Scale(torch.device("cpu"), ("fp32",)).detector(model)
    for together in (1, 1, 1, batch, batch, batch):
        detector.detect([image_of(SIZES_WH[0])] * together)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def worker_samples(server: Server, body: bytes, requests: int, clients: int) -> list[Sample]:
    """Memory of the server's only worker, from before the first request to after the last. Raises
    CommandError where a request failed."""
    recording, members = Recording(), living_members(server.process.pid)
    url = f"{server.url}/predictions/{server.model_name}"
    groups = [Group(1.0, [Request("image", body, {"Content-Type": JPEG})])]
    plan = Plan(url, groups, ClosedLoop(clients), float("inf"), max_requests=requests)
    with sampling(lambda: members, every_s=0.1) as snapshots:
        generate(plan, recording)
    failed = sum(not record.good for record in recording.records)
    if failed:
        raise CommandError(f"{url}: {failed} of {requests} requests failed; see {LOGS}")
    moments = [recording.began_at + record.done for record in recording.records]
    samples = [(bisect.bisect(moments, each.moment), each.resident(WORKER)) for each in snapshots]
    return [*samples, (len(moments), samples[-1][1])]


def rows_of(bare: int, samples: Sequence[Sample], requests: int) -> list[tuple[str, str]]:
    """Rows of the table: medians, because a forward pass allocates memory. After the first tenth of
    the requests every batch size has run."""
    calm = [each for each in samples if each[0] >= requests / 10]
    done, resident = np.array(calm, dtype=float).T
    tenth, peak = -(-len(calm) // 10), max(size for _, size in samples)
    figures = {
        "bare model, peak": bare,
        "worker, ready": samples[0][1],
        "worker, after a tenth of the requests": np.median(resident[:tenth]),
        "worker, at the end": np.median(resident[-tenth:]),
        "worker, peak": peak,
    }
    rows = [(name, f"{value / 1e6:,.0f}") for name, value in figures.items()]
    slope = np.polyfit(done, resident, 1)[0] if len(set(done)) > 1 else 0.0
    rows.append(("worker's peak / bare", f"{peak / bare:.2f}"))
    return [*rows, ("growth per 1,000 requests, after a tenth", f"{slope / 1e3:+.2f}")]
