"""`make bench`: every stage of a request beside its baselines; writes out/bench/stages.*."""

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from bench import upstream
from bench.comparison import Comparison, Result, notes_of, panels_of, run_comparison, table_of
from bench.machine import describe_machine, load_average
from bench.report import end_progress, progress, write_report
from bench.stages.inputs import decoding, resizing
from bench.stages.network import forward, nms
from bench.stages.outputs import encoding, masks
from bench.stages.overlap import overlap
from bench.stages.requests import requests, telemetry
from bench.workloads import Scale, native_precisions, quick_scale
from d2serve.errors import CommandError
from d2serve.settings import PRECISIONS

# In the order of a request's path.
STAGES: dict[str, Callable[[Scale], Iterator[Comparison]]] = {
    **{"decode": decoding, "resize": resizing, "forward": forward, "nms": nms, "masks": masks},
    **{"encode": encoding, "requests": requests},
}
# Run where --only names them.
OPTIONAL = {"overlap": overlap, "telemetry": telemetry}
OUTPUT = Path("out", "bench")
ROUNDS, QUICK_ROUNDS = 15, 2
SECONDS = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Time the stages and write the report, after Ctrl-C too, with what there is."""
    given = _parser().parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    device = chosen_device(given.device)
    precisions = tuple(given.precisions or native_precisions(device))
    scale = (quick_scale if given.quick else Scale)(device, precisions)
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    machine = describe_machine(device)
    results: list[Result] = []
    try:
        for result in _run(scale, given.only or list(STAGES), rounds, given.seconds):
            results.append(result)
    finally:
        end_progress()
        machine["load_average_after"] = load_average()
        missing = [] if upstream.installed() else ["detectron2 is not installed: no baseline"]
        write_report(
            given.output / "stages",
            machine,
            [table_of(results)],
            [*notes_of(results), *missing],
            {"results": [asdict(result) for result in results]},
            panels_of(results),
        )
    return 0


def _run(scale: Scale, stages: Sequence[str], rounds: int, within_s: float) -> Iterator[Result]:
    known = STAGES | OPTIONAL
    for comparison in itertools.chain.from_iterable(known[name](scale) for name in stages):
        text = f"{comparison.stage}: {comparison.model} {comparison.case}"
        yield run_comparison(comparison, rounds, within_s, partial(_show, text, rounds))


def _show(text: str, rounds: int, done: int) -> None:
    progress(f"{text}: round {done} of {rounds}")


def chosen_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        CommandError: torch has no CUDA device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise CommandError("--device cuda: torch finds no CUDA device; use --device cpu")
    return torch.device(name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench stages", description=__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*STAGES, *OPTIONAL],
        help=f"default: all stages but {' and '.join(OPTIONAL)}",
    )
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        help="of one comparison, unless three rounds take longer; default: %(default)s",
    )
    parser.add_argument("--threads", type=int, help="CPU threads of torch; default: torch's own")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=PRECISIONS[:-1],
        help="default: fp32, and the half precision that is native to the device",
    )
    parser.add_argument("--quick", action="store_true", help="few rounds, small sizes: a trial")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    return parser
