"""The command line of `make soak`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load.arguments import SAMPLES, SHAPES, positive, whole

OUT = Path("out", "soak")


@dataclass(frozen=True)
class Options:
    """What the user wants.

    Attributes:
        model: an archive.
        pictures: a picture or a folder of them.
        seconds: how long to measure.
        clients: of the closed loop.
        hostile: 0..1, of the requests.
        kill_every: seconds between two workers' ends; 0 kills none.
        out: the folder of the report.
    """

    model: Path
    pictures: Path
    seconds: float
    clients: int
    hostile: float
    kill_every: float
    out: Path

    @property
    def kills(self) -> list[float]:
        """Their moments, in seconds from the begin; none at the very end."""
        if not self.kill_every:
            return []
        count = int(self.seconds / self.kill_every - 1e-6)
        return [self.kill_every * (index + 1) for index in range(count)]


def parse(arguments: Sequence[str] | None) -> Options:
    """Reads the command line; ends the process with a message where it is wrong."""
    given = vars(_parser().parse_args(arguments))
    return Options(seconds=60 * given.pop("minutes"), **given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak",
        description="A server under mixed traffic and faults: what it got wrong, and what it used.",
    )
    parser.add_argument("--model", type=Path, default=SHAPES, help="default: %(default)s")
    parser.add_argument("--pictures", type=Path, default=SAMPLES, help="default: %(default)s")
    parser.add_argument("--minutes", type=positive, default=30, help="default: %(default)s")
    parser.add_argument("--clients", type=whole, default=32, help="default: %(default)s")
    parser.add_argument(
        "--hostile", type=_share, default=0.1, help="of the requests; default: %(default)s"
    )
    parser.add_argument(
        "--kill-every", type=_seconds, default=300, help="seconds; 0: never; default: %(default)s"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    return parser


def _share(text: str) -> float:
    value = _seconds(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: use a number from 0 to below 1")
    return value


def _seconds(text: str) -> float:
    return 0.0 if text == "0" else positive(text)
