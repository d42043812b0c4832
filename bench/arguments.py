"""Types and options that the commands share."""

import argparse
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import TypeVar

T = TypeVar("T", int, float)
INTERRUPTED = 130


def parser_of(
    command: str, text: str | None, output: Path = Path("out", "bench")
) -> argparse.ArgumentParser:
    """A parser of `python -m bench COMMAND` that shows defaults, with --output."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    prog = f"python -m bench {command}"
    parser = argparse.ArgumentParser(prog=prog, description=text, formatter_class=formatter)
    parser.add_argument("--output", "--out", type=Path, default=output, help="folder")
    return parser


def add_target(parser: argparse.ArgumentParser, *, url: bool = True) -> None:
    """Add --model, --url and --images."""
    server, model = parser.add_mutually_exclusive_group(), Path("model-store", "shapes.mar")
    server.add_argument("--model", type=Path, default=model, help="an archive")
    if url:
        server.add_argument("--url", help="a running server, as http://127.0.0.1:8080/invocations")
    samples, text = Path("models", "shapes", "samples"), "an image or a folder of images"
    parser.add_argument("--images", "--pictures", type=Path, default=samples, help=text)


def _number(kind: type[T], accepts: Callable[[T], bool], expected: str) -> Callable[[str], T]:
    """The type of an option."""

    def parse(text: str) -> T:
        with suppress(ValueError):
            if accepts(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"received {text!r}, expected {expected}")

    return parse


positive = _number(float, lambda value: 0 < value < inf, "a number above 0")
share = _number(float, lambda value: 0 <= value < 1, "a number of at least 0 and below 1")
seconds = _number(float, lambda value: 0 <= value < inf, "a number of at least 0")
whole = _number(int, lambda value: value > 0, "an integer of at least 1")
