"""SageMaker Clarify's analysis_config.json."""

import argparse
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from d2serve.aws.deployment import check_endpoint_name
from d2serve.aws.options import add_package, package_of
from d2serve.building.package import Package
from d2serve.cli.run import run
from d2serve.errors import CommandError
from d2serve.metadata import CLASSES_FILE, ClassNamesError, parse_class_names

DEFAULT_OUTPUT = Path("out/analysis_config.json")
# How Clarify is to find our rows [class, score, xmin, ymin, xmax, ymax]. It sends arrays of several
# pictures, and then wants nothing but a list of rows for each; encoded pictures come one by one.
WAY_TO_ROWS = {
    "application/x-npy": {"custom_attributes": "format=clarify"},
    "image/jpeg": {"label": "prediction"},
    "image/png": {"label": "prediction"},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, and say where."""
    given = _parser().parse_args(arguments)
    check_endpoint_name(given.endpoint)
    labels = class_names(package_of(given)) if given.name or given.package else None
    image_config = {
        "model_type": "OBJECT_DETECTION",
        "max_objects": given.max_objects,
        "iou_threshold": given.iou_threshold,
        "context": given.context,
        "num_segments": given.num_segments,
        "segment_compactness": given.segment_compactness,
    }
    config = analysis_config(
        given.endpoint, given.content_type, image_config, given.num_samples, labels
    )
    if given.dataset:
        config["dataset_uri"] = given.dataset
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(f"{given.output}; upload it to S3 as the input `analysis_config` of a Clarify job")
    return 0


def analysis_config(
    endpoint: str,
    content_type: str,
    image_config: dict[str, Any],
    num_samples: int,
    labels: list[str] | None,
) -> dict[str, Any]:
    """What Clarify reads."""
    predictor: dict[str, Any] = {
        "endpoint_name": endpoint,
        "content_type": content_type,
        "accept_type": "application/json",
        **WAY_TO_ROWS[content_type],
    }
    if labels is not None:
        predictor["label_headers"] = labels
    return {
        "version": "1.0",
        "dataset_type": "application/x-image",
        "methods": {
            "shap": {"num_samples": num_samples, "image_config": image_config},
            "report": {"name": "report", "title": f"What {endpoint} looks at"},
        },
        "predictor": predictor,
    }


def class_names(package: Package) -> list[str]:
    """The names of the package's things, in the order of their indices.

    Raises:
        CommandError: the package holds none.
    """
    try:
        with tarfile.open(package.path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file and PurePosixPath(member.name).name == CLASSES_FILE:
                    return list(parse_class_names(file.read(), CLASSES_FILE).things)
    except (OSError, tarfile.TarError, ClassNamesError) as error:
        raise CommandError(f"{package.path} cannot be read: {error}") from error
    raise CommandError(f"{package.path} holds no {CLASSES_FILE}; `make package` writes one")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clarify", description=__doc__)
    parser.add_argument("--endpoint", required=True, help="a real-time endpoint's name")
    add_package(parser, required=False)
    parser.add_argument("--dataset", metavar="s3://...", help="prefix of the pictures to explain")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="default: %(default)s")
    parser.add_argument(
        "--content-type",
        choices=WAY_TO_ROWS,
        default="application/x-npy",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--num-samples", type=int, default=500, help="requests per object; default: %(default)s"
    )
    parser.add_argument(
        "--max-objects", type=int, default=5, help="the best that are explained; %(default)s"
    )
    parser.add_argument(
        "--iou-threshold",
        type=float,
        default=0.5,
        help="overlap at which an object counts as found again; default: %(default)s",
    )
    parser.add_argument(
        "--context",
        type=float,
        default=1.0,
        help="how much of an object's surroundings is left: 0 hides, 1 keeps; %(default)s",
    )
    parser.add_argument(
        "--num-segments", type=int, default=20, help="parts of a picture; default: %(default)s"
    )
    parser.add_argument(
        "--segment-compactness", type=int, default=5, help="higher: squarer; default: %(default)s"
    )
    return parser


if __name__ == "__main__":
    run(main)
