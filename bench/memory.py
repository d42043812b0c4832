"""The memory of a worker that serves, beside that of the bare model: `python -m bench.memory`.

Bare is the peak of a process that loads the checkpoint and runs as large a batch. The worker is
that of a TorchServe with one worker, asked by several clients at once. Writes memory.json and
memory.png.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import torch

from bench.clients import send_all
from bench.machine import describe_machine, summary
from bench.progress import progress
from bench.resident import Sample, Sampler, settled, slope
from bench.scale import R50_FPN, SIZES_WH, picture_of
from bench.stages.decode import encoded
from bench.table import print_table
from scripts.archive import SERVING_DEFAULTS, build_archive
from scripts.errors import CommandError, run
from scripts.torchserve import Server, running_server
from tests.goldens.cases import TRAINED, GoldenModel

MODELS = {model.name: model for model in (R50_FPN, TRAINED)}
OUTPUT, LOGS = Path("out", "bench"), Path("logs", "bench-memory")
COLUMNS = ("memory", "MB")
EVERY_S = 0.1
MEGA = 1e6


@dataclass(frozen=True)
class Measured:
    """Resident bytes: of the bare model the peak, of the worker over its requests."""

    model: str
    clients: int
    requests: int
    bare: int
    samples: list[Sample]

    def rows(self) -> list[tuple[str, str]]:
        """What the table shows."""
        rows = [(f"bare {self.model}, peak at batch {batch_of(self.clients)}", _mega(self.bare))]
        calm = settled(self.samples, self.requests)
        if not calm:
            return rows
        most = max(sample.resident for sample in self.samples)
        growth = slope(calm) * 1000
        return [
            *rows,
            ("worker, ready", _mega(self.samples[0].resident)),
            (f"worker, after {calm[0].done} requests", _mega(calm[0].resident)),
            (f"worker, after {calm[-1].done} requests", _mega(calm[-1].resident)),
            ("worker, most", _mega(most)),
            ("worker's most / bare", f"{most / self.bare:.2f}"),
            (f"growth with 1,000 requests, from the {calm[0].done}th on", f"{growth / MEGA:+.2f}"),
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table and writes the files."""
    given = _parser().parse_args(arguments)
    model = MODELS[given.model]
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="d2serve-memory-") as temporary:
        folder = Path(temporary)
        checkpoint = checkpoint_of(model, folder)
        picture = folder / "picture.jpg"
        picture.write_bytes(encoded(picture_of(SIZES_WH[0]), "JPEG"))
        bare = bare_peak(model, checkpoint, picture, batch_of(given.clients), threads)
        samples: list[Sample] = []
        if given.requests:
            archive = build_archive(
                model.config, checkpoint, "bench", folder, serving=_serving(threads)
            )
            with running_server(archive, log_dir=LOGS) as server:
                samples = worker_samples(
                    server, picture.read_bytes(), given.requests, given.clients
                )
    measured = Measured(given.model, given.clients, given.requests, bare, samples)
    _report(measured, given.output)
    return 0


def checkpoint_of(model: GoldenModel, folder: Path) -> Path:
    """The model's, or where its weights are drawn, a file with them."""
    if model.checkpoint is not None:
        return model.checkpoint
    path = folder / "model.pth"
    torch.save({"model": model.build().state_dict()}, path)
    return path


def bare_peak(model: GoldenModel, checkpoint: Path, picture: Path, batch: int, threads: int) -> int:
    """Bytes of the process that has the model alone.

    Raises:
        CommandError: it failed.
    """
    words = (str(model.config), str(checkpoint), str(picture), str(batch), str(threads))
    process = subprocess.Popen([sys.executable, "-m", "bench.bare", *words])
    with Sampler(process.pid) as sampler:
        if process.wait() != 0:
            raise CommandError(f"bench.bare ended with {process.returncode}; see above")
    return sampler.peak


def worker_samples(server: Server, body: bytes, requests: int, clients: int) -> list[Sample]:
    """The worker's memory from before the first request to the last."""
    done = itertools.count(1)
    finished = 0
    with progress() as tell:

        def after_each() -> None:
            nonlocal finished
            finished = next(done)
            tell(f"{requests} requests", finished / requests)

        bodies = itertools.repeat(body, requests)
        with Sampler(worker_pid(server), lambda: finished, EVERY_S) as sampler:
            send_all(f"{server.url}/predictions/{server.model_name}", bodies, clients, after_each)
    return [*sampler.samples, Sample(finished, sampler.samples[-1].resident)]


def worker_pid(server: Server) -> int:
    """The only worker's process, as TorchServe's management API tells it."""
    answer = httpx.get(f"{server.management_url}/models/{server.model_name}", trust_env=False)
    [model] = answer.raise_for_status().json()
    [worker] = model["workers"]
    return int(worker["pid"])


def batch_of(clients: int) -> int:
    """How many pictures may run together at most."""
    return min(clients, int(SERVING_DEFAULTS["batchSize"]))


def _serving(threads: int) -> dict[str, object]:
    return {"handler": SERVING_DEFAULTS["handler"] | {"threads": threads}}


def _report(measured: Measured, folder: Path) -> None:
    machine = describe_machine(torch.device("cpu"))
    title = f"{measured.requests} requests of {measured.clients} clients"
    print(summary(machine))
    print_table(title, COLUMNS, measured.rows(), numbers_from=1)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, **asdict(measured), "table": dict(measured.rows())}
    (folder / "memory.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    written = ["memory.json"]
    if measured.samples:
        from bench.memory_plot import plot_memory

        plot_memory(measured, folder / "memory.png")
        written.append("memory.png")
    print(f"written into {folder}: {', '.join(written)}")


def _mega(size: int) -> str:
    return f"{size / MEGA:,.0f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--model", choices=MODELS, default=R50_FPN.name)
    parser.add_argument("--requests", type=int, default=500, help="0: the bare model alone")
    parser.add_argument("--clients", type=int, default=4, help="at once; default: %(default)s")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    run(main)
