"""Train the bundled shapes model: `python -m models.shapes.training`.

The output folder receives `model_final.pth`, `config.yaml`, `classes.json`, `metrics.json`,
`MODEL_CARD.md` and `samples/`. `--samples-only` requires numpy and OpenCV, training also
`detectron2` and `pycocotools`. With `torchrun`, several processes train together, each on its own
images.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2

from models.shapes.training.outlines import CLASS_NAMES
from models.shapes.training.samples import write_json, write_samples

DEFAULT_OUT = Path(__file__).resolve().parents[1]
DEFAULT_CHECKPOINT = DEFAULT_OUT.parents[1] / "build" / "shapes" / "checkpoint.pth"
INSTALL = {
    "detectron2": "pip install --no-build-isolation "
    "git+https://github.com/facebookresearch/detectron2.git",
    "pycocotools": "pip install pycocotools",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the sample images; without `--samples-only`, also train and evaluate the model."""
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
        package = (error.name or "").partition(".")[0]
        install = INSTALL.get(package, f"pip install {package}" if package else "install it")
        sys.exit(
            f"error: training requires the package {package or 'of this message'} ({error}); "
            f"run `{install}`, or use --samples-only to generate only the sample images"
        )
    train_and_describe(options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m models.shapes.training",
        description="Train the bundled shapes model and write its files.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=DEFAULT_OUT, help="output folder (default: %(default)s)")
    add("--samples-only", action="store_true", help="write classes and samples, do not train")
    add("--iterations", type=_positive, default=850, help="training steps of the detector")
    add("--pretraining-iterations", type=_count, default=700, help="steps of the backbone alone")
    add("--batch-size", type=_positive, default=8, help="images per step and process")
    add("--learning-rate", type=float, default=1e-3, help="peak learning rate")
    add("--frozen-fraction", type=_fraction, default=0.1, help="share of frozen-norm steps")
    add("--seed", type=_count, default=0, help="seed of weights and training images")
    add("--heldout", type=_positive, default=400, help="number of images to evaluate on")
    add("--threads", type=_positive, default=1, help="CPU threads of each process")
    add("--workers", type=_count, default=1, help="processes that generate images")
    add("--weights", type=Path, help="weights to start from, instead of random ones")
    add(
        "--checkpoint",
        type=Path,
        default=DEFAULT_CHECKPOINT,
        help="file for the intermediate state; training resumes from it (default: %(default)s)",
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
        raise argparse.ArgumentTypeError(f"must be at least 0, not {value}")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, not {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
