"""Sample images and JSON files of the bundled model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from models.shapes.training.scenes import generate_scene


@dataclass(frozen=True)
class SampleImage:
    """Parameters of a sample image; `size` is (width, height) in pixels."""

    name: str
    seed: int
    size: tuple[int, int]
    shape_count: int


SAMPLE_IMAGES: tuple[SampleImage, ...] = (
    SampleImage("shapes_01.jpg", 106, (640, 480), 11),
    SampleImage("shapes_02.png", 203, (320, 240), 7),
    SampleImage("shapes_03.jpg", 306, (1024, 576), 14),
    SampleImage("shapes_04.png", 414, (426, 640), 11),
    SampleImage("shapes_05.jpg", 506, (800, 600), 13),
    SampleImage("shapes_06.png", 603, (480, 640), 11),
)

_IMAGE_OPTIONS = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 90],
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 9],
}


def write_samples(folder: Path) -> list[Path]:
    """Generate the sample images (JPEG and PNG files) in a folder and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for sample in SAMPLE_IMAGES:
        path = folder / sample.name
        image = generate_scene(sample.seed, sample.size, sample.shape_count).image
        if not cv2.imwrite(str(path), image[..., ::-1], _IMAGE_OPTIONS[path.suffix]):
            raise OSError(f"could not write {path}")
        paths.append(path)
    return paths


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON and create its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
