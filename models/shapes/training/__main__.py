"""Train the bundled shapes model and write everything that belongs to it.

Needs numpy and OpenCV for ``--samples-only``, and an installed ``detectron2`` for the rest.

Several processes train together, each on pictures of its own, when started with ``torchrun``.

Written to the output folder: ``model_final.pth``, ``config.yaml``, ``classes.json``,
``metrics.json``, ``MODEL_CARD.md`` and ``samples/``.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import cv2

from d2serve.cli.run import run
from d2serve.errors import CommandError
from models.shapes.training.outlines import CLASS_NAMES
from models.shapes.training.samples import write_json, write_samples

_ROOT = Path(__file__).resolve().parents[1]
DEFAULT_OUT = _ROOT / "models" / "shapes"
DEFAULT_CHECKPOINT = _ROOT / "build" / "shapes" / "checkpoint.pth"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the samples and, unless they are all that is wanted, train, measure and write."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = _parse(arguments)
    cv2.setNumThreads(1)
    write_samples(options.out / "samples")
    write_json(options.out / "classes.json", list(CLASS_NAMES))
    if not options.samples_only:
        _train(options)
    return 0


def _train(options: argparse.Namespace) -> None:
    try:
        from models.shapes.training.release import train_and_describe
    except ImportError as error:
        raise CommandError(
            f"training needs the packages detectron2 and pycocotools ({error}); "
            "use --samples-only to generate just the sample pictures"
        ) from error
    train_and_describe(options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--out", type=Path, default=DEFAULT_OUT, help="output folder (default: %(default)s)")
    add("--samples-only", action="store_true", help="write classes and samples, do not train")
    add("--iterations", type=_positive, default=850, help="training steps of the detector")
    add("--pretraining-iterations", type=_count, default=700, help="steps of the backbone alone")
    add("--batch-size", type=_positive, default=8, help="pictures per step and process")
    add("--learning-rate", type=float, default=1e-3, help="peak learning rate")
    add("--frozen-fraction", type=_fraction, default=0.1, help="share of frozen-norm steps")
    add("--seed", type=_count, default=0, help="seed of weights and training pictures")
    add("--heldout", type=_positive, default=400, help="number of pictures to evaluate on")
    add("--threads", type=_positive, default=1, help="CPU threads of each process")
    add("--workers", type=_count, default=1, help="processes that generate pictures")
    add("--weights", type=Path, help="start from these weights, not random ones")
    add(
        "--checkpoint",
        type=Path,
        default=DEFAULT_CHECKPOINT,
        help="where the state is saved; goes on from it if it exists (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, as {value} is")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, not {value}")
    return value


if __name__ == "__main__":
    run(main)
