"""The analysis_config.json of SageMaker Clarify."""

import tarfile
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from d2serve.aws.deployment import check_endpoint_name
from d2serve.building.package import Package
from d2serve.errors import ClassNamesError, CommandError
from d2serve.metadata import CLASSES_FILE, parse_class_names

# Where Clarify finds our rows [class, score, xmin, ymin, xmax, ymax]. It sends several images as
# one array and expects a bare list of rows per image; it sends encoded images one by one.
PREDICTOR_FIELDS = {
    "application/x-npy": {"custom_attributes": "format=clarify"},
    "image/jpeg": {"label": "prediction"},
    "image/png": {"label": "prediction"},
}


@dataclass(frozen=True)
class ImageAnalysis:
    """Clarify's `image_config` for object detection.

    Attributes:
        max_objects: number of objects to explain, by descending score.
        iou_threshold: overlap from which a detection counts as the same object.
        context: 0 hides an object's surroundings, 1 keeps them.
        num_segments: number of superpixels per image.
        segment_compactness: higher values give squarer superpixels.
    """

    max_objects: int = 5
    iou_threshold: float = 0.5
    context: float = 1.0
    num_segments: int = 20
    segment_compactness: int = 5


def analysis_config(
    endpoint: str,
    *,
    content_type: str = "application/x-npy",
    image_analysis: ImageAnalysis | None = None,
    num_samples: int = 500,
    labels: list[str] | None = None,
    dataset: str | None = None,
) -> dict[str, Any]:
    """Build the content of analysis_config.json.

    Args:
        endpoint: name of a real-time endpoint.
        content_type: one of PREDICTOR_FIELDS.
        image_analysis: settings of the image analysis; the defaults if None.
        num_samples: requests per object.
        labels: class names in the order of their indices.
        dataset: s3:// prefix of the images to explain.

    Raises:
        CommandError: SageMaker would reject the endpoint's name.
    """
    check_endpoint_name(endpoint)
    image_config = {
        "model_type": "OBJECT_DETECTION",
        **asdict(image_analysis or ImageAnalysis()),
    }
    config: dict[str, Any] = {
        "version": "1.0",
        "dataset_type": "application/x-image",
        "methods": {
            "shap": {"num_samples": num_samples, "image_config": image_config},
            "report": {"name": "report", "title": f"Feature attributions of {endpoint}"},
        },
        "predictor": {
            "endpoint_name": endpoint,
            "content_type": content_type,
            "accept_type": "application/json",
            **PREDICTOR_FIELDS[content_type],
        },
    }
    if labels is not None:
        config["predictor"]["label_headers"] = labels
    if dataset:
        config["dataset_uri"] = dataset
    return config


def class_names(package: Package) -> list[str]:
    """Read the names of a package's thing classes, in the order of their indices.

    Raises:
        CommandError: the package cannot be read, or contains no class names.
    """
    try:
        with tarfile.open(package.path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file and PurePosixPath(member.name).name == CLASSES_FILE:
                    return list(parse_class_names(file.read(), CLASSES_FILE).things)
    except (OSError, tarfile.TarError, ClassNamesError) as error:
        raise CommandError(f"{package.path} cannot be read: {error}") from error
    raise CommandError(
        f"{package.path} contains no {CLASSES_FILE}; rebuild it with `d2serve package`"
    )
