"""The memory of a worker that serves, beside that of the bare model: `python -m bench.memory`.

Bare is the peak of a process that loads the checkpoint and runs as large a batch. The worker is
that of a TorchServe with one worker, asked by several clients at once. Writes memory.json and
memory.png.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from bench.checkpoints import checkpoint_of
from bench.machine import describe_machine, summary
from bench.memory.measured import Measured, batch_of
from bench.memory.processes import bare_peak, worker_samples
from bench.memory.resident import Sample
from bench.scale import R50_FPN, SIZES_WH, picture_of
from bench.stages.decode import encoded
from bench.table import print_table
from scripts.archive import ONE_WORKER, SERVING_DEFAULTS, build_archive
from scripts.errors import run
from scripts.torchserve import running_server
from tests.goldens.cases import TRAINED

MODELS = {model.name: model for model in (R50_FPN, TRAINED)}
OUTPUT, LOGS = Path("out", "bench"), Path("logs", "bench-memory")
COLUMNS = ("memory", "MB")


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


def _serving(threads: int) -> dict[str, object]:
    handler = SERVING_DEFAULTS["handler"] | {"threads": threads}
    return {"handler": handler, **ONE_WORKER}


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
        from bench.memory.plot import plot_memory

        plot_memory(measured, folder / "memory.png")
        written.append("memory.png")
    print(f"written into {folder}: {', '.join(written)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--model", choices=MODELS, default=R50_FPN.name)
    parser.add_argument("--requests", type=int, default=500, help="0: the bare model alone")
    parser.add_argument("--clients", type=int, default=4, help="at once; default: %(default)s")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    run(main)
