"""Compare every YAML config of Detectron2's model zoo with upstream and write the table.

Requires the upstream package: python -m tests.goldens.zoo CONFIGS_FOLDER [PART_OF_A_NAME ...]
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from d2serve.building.config import load_config
from d2serve.detections import Detections, RGBImage
from d2serve.detector.native import NativeDetector
from d2serve.errors import ConfigError
from d2serve.settings import Settings
from tests.goldens.cases import REPOSITORY, SAMPLES, GoldenModel
from tests.goldens.comparison import Comparison, compare
from tests.goldens.upstream import UpstreamModel

PAGE = REPOSITORY / "docs" / "model-zoo.md"
START, END = "<!-- table -->\n", "<!-- end of table -->\n"
COLUMNS = ("config", "detections", "matched", "boxes", "scores", "masks", "keypoints", "pixels")
SIZE_WH = (320, 224)
MIN_DETECTIONS = 20
THRESHOLDS = (0.05, 0.01, 0.001, 0.0001)


@dataclass(frozen=True)
class Row:
    """A row of the table: a config and its comparison, or the reason that it is not supported."""

    name: str
    result: Comparison | str

    @property
    def is_ok(self) -> bool:
        """True if the config is within tolerance or deliberately unsupported."""
        return isinstance(self.result, str) or self.result.within_tolerance

    def __str__(self) -> str:
        cells = (self.result,) if isinstance(self.result, str) else _cells(self.result)
        return _line(self.name, *cells, *[""] * (len(COLUMNS) - 1 - len(cells)))


def main(arguments: list[str]) -> int:
    """Print a row for each selected config; without a selection, rewrite the page."""
    folder, parts = Path(arguments[0]), arguments[1:]
    rows = []
    for config in _zoo(folder, parts):
        rows.append(compare_config(config, str(config.relative_to(folder))))
        print(rows[-1], flush=True)
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
            comparison = _compare(GoldenModel(name, lowered, None, ()), image)
            if comparison.expected >= MIN_DETECTIONS or _has_no_boxes(lowered):
                break
    return Row(name, comparison)


def header() -> tuple[str, str]:
    """The first two lines of the table."""
    return _line(*COLUMNS), _line(*["---"] * len(COLUMNS))


def _compare(model: GoldenModel, image: RGBImage) -> Comparison:
    expected = UpstreamModel(model.config, None).predict(image)
    detector = NativeDetector(model.build(), torch.device("cpu"), Settings())
    [result] = detector.detect([image])
    assert isinstance(result.output, Detections)
    return compare(expected, result.output)


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


def _cells(found: Comparison) -> tuple[str, ...]:
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
    return (*instances, pixels)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _write_page(rows: list[Row]) -> None:
    table = [*header(), *map(str, rows)]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    text = "".join(f"{line}\n" for line in table)
    PAGE.write_text(f"{before}{START}{text}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
