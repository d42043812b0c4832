"""The command line of `make loadtest`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load.serving import grid
from bench.load.sweep import SweepPlan

SHAPES = Path("model-store", "shapes.mar")
SAMPLES = Path("models", "shapes", "samples")
OUT = Path("out", "loadtest")


@dataclass(frozen=True)
class Preset:
    """What is measured unless the command line says otherwise."""

    batch_sizes: Sequence[int]
    delays_ms: Sequence[int]
    workers: Sequence[int]
    clients: Sequence[int]
    fractions: Sequence[float]
    seconds: float
    warm_up: float


FULL = Preset((1, 4, 16), (5, 20), (1, 2, 4), (1, 4, 16, 32), (0.5, 0.8, 0.95, 1.2), 4.0, 1.0)
QUICK = Preset((8,), (20,), (1,), (1, 8), (0.5, 1.2), 1.0, 0.5)


@dataclass(frozen=True)
class Options:
    """What the user wants.

    Attributes:
        model: an archive, served with each setting; not looked at where there is a URL.
        url: of a server that runs already.
        pictures: a picture or a folder of them.
        out: the folder of the report.
        plan: what to measure.
    """

    model: Path
    url: str | None
    pictures: Path
    out: Path
    plan: SweepPlan


def parse(arguments: Sequence[str] | None) -> Options:
    """Reads the command line; ends the process with a message where it is wrong."""
    given = _parser().parse_args(arguments)
    preset = QUICK if given.quick else FULL
    wanted = {
        name: getattr(preset, name) if getattr(given, name) is None else getattr(given, name)
        for name in Preset.__annotations__
    }
    settings = grid(wanted["batch_sizes"], wanted["delays_ms"], wanted["workers"], given.threads)
    plan = SweepPlan(
        settings=[None] if given.url else settings,
        clients=sorted(set(wanted["clients"])),
        fractions=wanted["fractions"],
        seconds=wanted["seconds"],
        warm_up_seconds=wanted["warm_up"],
        p99_ms=given.p99_ms,
    )
    return Options(given.model, given.url, given.pictures, given.out, plan)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.load", description="A server under load, and the settings for it."
    )
    server = parser.add_mutually_exclusive_group()
    server.add_argument("--model", type=Path, default=SHAPES, help="default: %(default)s")
    server.add_argument("--url", help="a server that runs; then only the clients are swept")
    parser.add_argument("--pictures", type=Path, default=SAMPLES, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one setting, half a minute")
    parser.add_argument("--p99-ms", type=positive, help="the p99 that a setting has to keep")
    for name, kind, what in (
        ("batch_sizes", whole, "batchSize"),
        ("delays_ms", whole, "maxBatchDelay"),
        ("workers", whole, "minWorkers and maxWorkers"),
        ("clients", whole, "of the closed loops"),
        ("fractions", positive, "rates of the open loops, of the best closed one"),
    ):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=kind, nargs="+", metavar="N", help=_help(name, what))
    parser.add_argument("--threads", type=whole, help="of each worker; default: cores / workers")
    parser.add_argument(
        "--seconds", type=positive, help=_help("seconds", "of each point, at least")
    )
    parser.add_argument(
        "--warm-up", type=positive, help=_help("warm_up", "seconds before each point, at least")
    )
    return parser


def _help(name: str, what: str) -> str:
    default = getattr(FULL, name)
    values = default if isinstance(default, tuple) else (default,)
    return f"{what}; default: {' '.join(f'{value:g}' for value in values)}"


def whole(text: str) -> int:
    """An argument's type: a number of things, of which there is one at least."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: use a whole number of at least 1")
    return int(text)


def positive(text: str) -> float:
    """An argument's type: a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: use a number above 0")
    return value
