"""`make bench`: every stage of a request beside its peers, then whole requests.

Writes results.json, results.md and results.png. Peers that are not installed are left out.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from bench import upstream
from bench.contest import Contest, Result, hold
from bench.machine import describe_machine, load_average
from bench.progress import Tell, progress
from bench.report import report
from bench.results import Run, write_run
from bench.scale import Scale, quick_scale, quickest_precisions
from bench.stages import decode, encode, forward, masks, nms, requests, resize
from handler.settings import PRECISIONS
from scripts.errors import CommandError, run

# In the order of a request's way.
STAGES: dict[str, Callable[[Scale], Iterator[Contest]]] = {
    module.STAGE: module.contests
    for module in (decode, resize, forward, nms, masks, encode, requests)
}
OUTPUT = Path("out", "bench")
ROUNDS, QUICK_ROUNDS = 15, 2
SECONDS = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Times what is asked for, prints the table and writes the files."""
    given = _parser().parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    device = chosen_device(given.device)
    precisions = tuple(given.precisions or quickest_precisions(device))
    scale = (quick_scale if given.quick else Scale)(device, precisions)
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    if not upstream.installed():
        print("detectron2 is left out of the peers, as it is not installed")
    timed = Run(describe_machine(device), ())
    given.output.mkdir(parents=True, exist_ok=True)
    path = given.output / "results.json"
    for result in held(scale, given.only or list(STAGES), rounds, given.seconds):
        # Each time, so that a run that is stopped leaves what it has.
        timed = replace(timed, results=(*timed.results, result))
        timed.machine["load_average_after"] = load_average()
        write_run(path, timed)
    print(f"every timing is in {path}")
    report(timed, given.output)
    return 0


def held(scale: Scale, stages: Sequence[str], rounds: int, within_s: float) -> Iterator[Result]:
    """Holds the contests of these stages, one after another."""
    with progress() as tell:
        contests = itertools.chain.from_iterable(STAGES[name](scale) for name in stages)
        for contest in contests:
            yield hold(contest, rounds, within_s, _teller(tell, contest, rounds))


def _teller(tell: Tell, contest: Contest, rounds: int) -> Callable[[int], None]:
    text = " ".join(filter(None, (f"{contest.stage}:", contest.model, contest.case)))
    tell(text, 0.0)
    return lambda done: tell(text, done / rounds)


def chosen_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        CommandError: there is no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise CommandError("--device cuda: torch finds no CUDA device here; leave it out")
    return torch.device(name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=STAGES, help="default: all stages")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        help="for one contest, if three rounds do not take longer; default: %(default)s",
    )
    parser.add_argument("--threads", type=int, help="CPU threads of torch; default: its own")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=PRECISIONS[:-1],
        help="default: fp32, and what is quicker on this device",
    )
    parser.add_argument("--quick", action="store_true", help="few rounds, small sizes: a trial")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    run(main)
