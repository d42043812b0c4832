"""Compare every YAML config of Detectron2's model zoo with upstream and write the table.

Requires the upstream package: python -m tests.goldens.zoo CONFIGS_FOLDER [PART_OF_A_NAME ...]
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from d2serve.building.config import load_config
from d2serve.detections import Detections, RGBImage
from d2serve.detector.native import NativeDetector
from d2serve.errors import ConfigError
from d2serve.model.config import ModelConfig
from d2serve.settings import Settings
from tests.goldens.cases import REPOSITORY, SAMPLES, GoldenModel
from tests.goldens.comparison import (
    BOX_TOLERANCE_PX,
    KEYPOINT_TOLERANCE_PX,
    MIN_MASK_IOU,
    SCORE_TOLERANCE,
    Comparison,
    compare,
)
from tests.goldens.noise import Noise, describe_machine, measure_noise
from tests.goldens.upstream import UpstreamModel

PAGE = REPOSITORY / "docs" / "model-zoo.md"
START, END = "<!-- table -->\n", "<!-- end of table -->\n"
MACHINE, END_OF_MACHINE = "<!-- machine -->\n", "<!-- end of machine -->\n"
COLUMNS = (
    *("config", "detections", "matched", "boxes", "scores", "masks", "keypoints", "pixels"),
    *("boxes, upstream", "scores, upstream", "masks, upstream"),
    "keypoints, upstream",
)
SIZE_WH = (320, 224)
MIN_DETECTIONS = 20
THRESHOLDS = (0.05, 0.01, 0.001, 0.0001)


@dataclass(frozen=True)
class Measured:
    """The comparison of a config, and upstream's own noise on the same image."""

    comparison: Comparison
    noise: Noise

    @property
    def is_ok(self) -> bool:
        """True if the deviation is within the tolerance, or within upstream's own noise."""
        found, noise = self.comparison, self.noise
        return found.within_tolerance or (
            found.expected - found.matched <= noise.unmatched
            and found.box_error_px <= max(BOX_TOLERANCE_PX, noise.box_error_px)
            and found.score_error <= max(SCORE_TOLERANCE, noise.score_error)
            and self._has_same_masks
            and (found.keypoint_error_px or 0.0)
            <= max(KEYPOINT_TOLERANCE_PX, noise.keypoint_error_px)
        )

    @property
    def _has_same_masks(self) -> bool:
        """True if no mask deviates by more than upstream's in IoU, or in pixels if it is small."""
        found, noise = self.comparison, self.noise
        if found.mask_iou is None or found.mask_error_px is None:
            return True
        return (
            found.mask_iou >= min(MIN_MASK_IOU, noise.mask_iou)
            or found.mask_error_px <= noise.mask_error_px
        )


@dataclass(frozen=True)
class Row:
    """A row of the table: a config and its comparison, or the reason that it is not supported."""

    name: str
    result: "Measured | str"

    @property
    def is_ok(self) -> bool:
        """True if the config is within tolerance or deliberately unsupported."""
        return isinstance(self.result, str) or self.result.is_ok

    def __str__(self) -> str:
        cells = (self.result,) if isinstance(self.result, str) else _cells(self.result)
        return _line(self.name, *cells, *[""] * (len(COLUMNS) - 1 - len(cells)))


def main(arguments: list[str]) -> int:
    """Print a row for each selected config; without a selection, rewrite the page."""
    folder, parts = Path(arguments[0]), arguments[1:]
    rows = []
    measured: dict[ModelConfig, Row] = {}
    for config in _zoo(folder, parts):
        row = _compare_once(config, str(config.relative_to(folder)), measured)
        rows.append(row)
        print(row, flush=True)
    if not parts:
        _write_page(rows)
    return 0 if all(row.is_ok for row in rows) else 1


def compare_config(config: Path, name: str) -> Row:
    """Compare both networks at full size, with seeded weights, on one image of 320x224."""
    try:
        load_config(config)
    except ConfigError as error:
        return Row(name, f"refused: {str(error).partition(': ')[2]}")
    return compare_at_threshold(config, name, _with_threshold)


def _compare_once(config: Path, name: str, measured: dict[ModelConfig, Row]) -> Row:
    """Compare a config, unless one of `measured` has the same network."""
    try:
        network = load_config(config)
    except ConfigError:
        return compare_config(config, name)
    key = replace(network, input=replace(network.input, min_size=0, max_size=0))
    if key not in measured:
        measured[key] = compare_config(config, name)
    return replace(measured[key], name=name)


def compare_at_threshold(
    config: Path, name: str, with_threshold: Callable[[Path, float, Path], Path]
) -> Row:
    """Compare at the highest score threshold that gives enough detections.

    Args:
        config: a supported config.
        name: name in the row.
        with_threshold: writes the config with another score threshold to a folder.
    """
    image = np.array(Image.open(SAMPLES[1]).convert("RGB").resize(SIZE_WH))
    with tempfile.TemporaryDirectory() as folder:
        for threshold in THRESHOLDS:
            lowered = with_threshold(config, threshold, Path(folder))
            measured = compare_model(GoldenModel(name, lowered, None, ()), image)
            if measured.comparison.expected >= MIN_DETECTIONS or _has_no_boxes(lowered):
                break
    return Row(name, measured)


def header() -> tuple[str, str]:
    """The first two lines of the table."""
    return _line(*COLUMNS), _line(*["---"] * len(COLUMNS))


def compare_model(model: GoldenModel, image: RGBImage) -> Measured:
    """Compare both networks of a model on UInt8[H, W, 3] RGB."""
    upstream = UpstreamModel(model.config, model.checkpoint, augment=model.augment)
    expected = upstream.predict(image)
    detector = NativeDetector(model.build(), torch.device("cpu"), Settings())
    [result] = detector.detect([image])
    assert isinstance(result.output, Detections)
    return Measured(compare(expected, result.output), measure_noise(upstream, image, expected))


def _has_no_boxes(config: Path) -> bool:
    return load_config(config).output.num_classes == 0


def _zoo(folder: Path, parts: list[str]) -> Iterator[Path]:
    for config in sorted(folder.rglob("*.yaml")):
        wanted = not parts or any(part in str(config) for part in parts)
        if wanted and not config.name.startswith("Base"):
            yield config


def _with_threshold(config: Path, threshold: float, folder: Path) -> Path:
    changed = {
        "_BASE_": str(config.resolve()),
        "INPUT": {"MIN_SIZE_TEST": 0},
        "MODEL": {
            "WEIGHTS": "",
            "ROI_HEADS": {"SCORE_THRESH_TEST": threshold},
            "RETINANET": {"SCORE_THRESH_TEST": threshold},
        },
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(changed), encoding="utf-8")
    return path


def _cells(measured: Measured) -> tuple[str, ...]:
    found, noise = measured.comparison, measured.noise
    masks, keypoints = found.mask_iou, found.keypoint_error_px
    instances = (
        str(found.expected),
        f"{found.matched / found.expected:.1%}" if found.expected else "",
        f"{found.box_error_px:.2g} px",
        f"{found.score_error:.2g}",
        "" if masks is None else f"{masks:.4f}",
        "" if keypoints is None else f"{keypoints:.2g} px",
    )
    pixels = "" if found.semantic_agreement is None else f"{found.pixel_agreement:.2%}"
    noises = (
        f"{noise.box_error_px:.2g} px",
        f"{noise.score_error:.2g}",
        "" if masks is None else f"{noise.mask_iou:.4f}",
        "" if keypoints is None else f"{noise.keypoint_error_px:.2g} px",
    )
    return (*instances, pixels, *noises)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _write_page(rows: list[Row]) -> None:
    table = [*header(), *map(str, rows)]
    write_section(START, "".join(f"{line}\n" for line in table), END)
    write_section(MACHINE, f"{describe_machine()}\n", END_OF_MACHINE)


def write_section(start: str, text: str, end: str) -> None:
    """Replace the text between two lines of the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(start)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{start}{text}{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
