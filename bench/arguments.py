"""Types and options that the commands share."""

import argparse
from pathlib import Path

SHAPES_MAR = Path("model-store", "shapes.mar")
SAMPLES = Path("models", "shapes", "samples")
INTERRUPTED = 130


def add_target(parser: argparse.ArgumentParser, url: bool = True) -> None:
    """Add --model, --url and --pictures."""
    server = parser.add_mutually_exclusive_group()
    server.add_argument("--model", type=Path, default=SHAPES_MAR, help="default: %(default)s")
    if url:
        server.add_argument("--url", help="a running server, as http://127.0.0.1:8080/invocations")
    images = "an image or a folder of images; default: %(default)s"
    parser.add_argument("--images", "--pictures", type=Path, default=SAMPLES, help=images)


def whole(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"received {text!r}, expected an integer of at least 1")
    return int(text)


def positive(text: str) -> float:
    """A number above 0."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"received {text!r}, expected a number above 0")
    return value


def seconds(text: str) -> float:
    """A number of at least 0."""
    value = _number(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"received {text!r}, expected a number of at least 0")
    return value


def share(text: str) -> float:
    """A number from 0 to below 1."""
    value = _number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"received {text!r}, expected a number from 0 to below 1")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0
