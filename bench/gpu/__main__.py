"""`make bench-gpu`: the network, whole requests and HTTP on a CUDA GPU.

Made to take less than 8 minutes. Prints one table and writes gpu.json. What is not installed
(detectron2, TorchServe) is left out.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from bench.gpu.decoding import decode_rates
from bench.gpu.network import (
    FORWARD,
    forward_rates,
    free_memory,
    pipeline_rates,
    quickest_precision,
    upstream_rates,
)
from bench.gpu.plan import Plan, quick_plan
from bench.gpu.rate import Rate
from bench.machine import describe_machine, summary
from bench.progress import progress
from bench.table import print_table
from bench.upstream import installed
from scripts.errors import run

OUTPUT = Path("out", "bench")
COLUMNS = (
    *("what", "precision", "batch or clients", "images/s"),
    *("ms, median", "quartiles", "MB on the device", "of the best forward"),
)
NUMBERS_FROM = 2
NO_GPU = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table and writes the file; 2 where there is no GPU."""
    given = _parser().parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("bench.gpu needs a CUDA GPU, and torch finds none here", file=sys.stderr)
        return NO_GPU
    device = torch.device(given.device)
    plan = quick_plan(device) if given.quick else Plan(device)
    machine = describe_machine(device)
    rates: list[Rate] = []
    with progress() as tell:
        for rate in _rates(plan, rates, http=not given.without_http and bool(find_spec("ts"))):
            rates.append(rate)
            share = (plan.clock() - plan.started) / plan.within_s
            tell(f"{rate.what}, {rate.precision}, {rate.together}", min(1.0, share))
    print(summary(machine))
    print_table("Pictures a second", COLUMNS, rows_of(rates), NUMBERS_FROM)
    for line in left_out(plan, given.without_http):
        print(line)
    given.output.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "rates": [asdict(rate) for rate in rates]}
    path = given.output / "gpu.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"every figure is in {path}")
    return 0


def rows_of(rates: Sequence[Rate]) -> list[tuple[str, ...]]:
    """The cells of each rate, and its part of the quickest forward's."""
    forwards = (rate.images_per_s for rate in rates if rate.what == FORWARD)
    best = max(forwards, default=0.0)
    return [_row(rate, best) for rate in rates]


def left_out(plan: Plan, without_http: bool) -> list[str]:
    """What the table does not have, and why."""
    lines = []
    if not installed():
        lines.append("detectron2 is left out, as it is not installed")
    if without_http or find_spec("ts") is None:
        reason = "was not asked for" if without_http else "needs the package torchserve"
        lines.append(f"HTTP is left out: it {reason}")
    if plan.time_is_up:
        lines.append(f"what would have begun after {plan.within_s:.0f} s is left out")
    return lines


def _rates(plan: Plan, done: list[Rate], http: bool) -> Iterator[Rate]:
    yield from _in_time(forward_rates(plan), plan)
    yield from _in_time(upstream_rates(plan), plan)
    free_memory()
    precision = quickest_precision(done)
    yield from _in_time(pipeline_rates(plan, precision), plan)
    yield from _in_time(decode_rates(plan), plan)
    free_memory()
    if http:
        from bench.gpu.http import http_rates

        yield from http_rates(plan, precision)


def _in_time(rates: Iterator[Rate], plan: Plan) -> Iterator[Rate]:
    while not plan.time_is_up and (rate := next(rates, None)) is not None:
        yield rate


def _row(rate: Rate, forward: float) -> tuple[str, ...]:
    named = (rate.what, rate.precision, str(rate.together))
    if rate.failure:
        return (*named, rate.failure, "", "", "", "")
    low, median, high = np.quantile(np.array(rate.seconds) * 1e3, (0.25, 0.5, 0.75))
    return (
        *named,
        f"{rate.images_per_s:.1f}",
        f"{median:.1f}",
        f"{low:.1f}..{high:.1f}",
        f"{rate.peak_bytes / 1e6:,.0f}" if rate.peak_bytes else "",
        f"{rate.images_per_s / forward:.2f}" if forward else "",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a trial of the script")
    parser.add_argument("--without-http", action="store_true", help="no TorchServe")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    run(main)
