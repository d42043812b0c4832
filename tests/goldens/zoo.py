"""Holds every YAML config of Detectron2's model zoo against upstream, and writes the table.

Needs the upstream package: python -m tests.goldens.zoo CONFIGS_FOLDER [PART_OF_A_NAME ...]
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
from d2serve.building.yaml_config import ConfigError
from d2serve.detections import Detections, Picture
from d2serve.detector.native import NativeDetector
from d2serve.settings import Settings
from tests.goldens.cases import REPOSITORY, SAMPLES, GoldenModel
from tests.goldens.comparison import Comparison, compare
from tests.goldens.upstream import UpstreamModel

PAGE = REPOSITORY / "docs" / "model-zoo.md"
START, END = "<!-- table -->\n", "<!-- end of table -->\n"
COLUMNS = ("config", "detections", "matched", "boxes", "scores", "masks", "keypoints", "pixels")
SIZE_WH = (320, 224)
ENOUGH_DETECTIONS = 20
THRESHOLDS = (0.05, 0.01, 0.001, 0.0001)


@dataclass(frozen=True)
class Row:
    """A config's line of the table: how far it is from upstream, or why it is refused."""

    name: str
    outcome: Comparison | str

    @property
    def is_fine(self) -> bool:
        """Within the tolerances, or refused on purpose."""
        return isinstance(self.outcome, str) or self.outcome.within_tolerance

    def __str__(self) -> str:
        cells = (self.outcome,) if isinstance(self.outcome, str) else _cells(self.outcome)
        return _line(self.name, *cells, *[""] * (len(COLUMNS) - 1 - len(cells)))


def main(arguments: list[str]) -> int:
    """Prints a row for each config; writes the page where all configs are asked for."""
    folder, parts = Path(arguments[0]), arguments[1:]
    rows = []
    for config in _zoo(folder, parts):
        rows.append(compare_config(config, str(config.relative_to(folder))))
        print(rows[-1], flush=True)
    if not parts:
        _write_page(rows)
    return 0 if all(row.is_fine for row in rows) else 1


def compare_config(config: Path, name: str) -> Row:
    """Both networks at full size with the same seeded weights, on one picture of 320x224."""
    try:
        load_config(config)
    except ConfigError as error:
        return Row(name, f"refused: {str(error).partition(': ')[2]}")
    return closest_look(config, name, _with_threshold)


def closest_look(
    config: Path, name: str, with_threshold: Callable[[Path, float, Path], Path]
) -> Row:
    """The comparison at the highest threshold that lets enough detections through.

    Args:
        config: one that our own network supports.
        name: what the row says.
        with_threshold: writes the config with another score threshold into a folder.
    """
    picture = np.array(Image.open(SAMPLES[1]).convert("RGB").resize(SIZE_WH))
    with tempfile.TemporaryDirectory() as folder:
        for threshold in THRESHOLDS:
            lowered = with_threshold(config, threshold, Path(folder))
            comparison = _compare(GoldenModel(name, lowered, None, ()), picture)
            if comparison.expected >= ENOUGH_DETECTIONS or _finds_no_boxes(lowered):
                break
    return Row(name, comparison)


def header() -> tuple[str, str]:
    """The table's first two lines."""
    return _line(*COLUMNS), _line(*["---"] * len(COLUMNS))


def _compare(model: GoldenModel, picture: Picture) -> Comparison:
    expected = UpstreamModel(model.config, None).predict(picture)
    detector = NativeDetector(model.build(), torch.device("cpu"), Settings())
    [outcome] = detector.detect([picture])
    assert isinstance(outcome.found, Detections)
    return compare(expected, outcome.found)


def _finds_no_boxes(config: Path) -> bool:
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
