"""Compare configs of Detectron2's model zoo under test-time augmentation and print the rows.

Requires the upstream package: python -m tests.goldens.augmented_zoo CONFIGS_FOLDER CONFIG ...
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from d2serve.detections import RGBImage
from tests.goldens.cases import SAMPLES, GoldenModel
from tests.goldens.upstream import UpstreamModel
from tests.goldens.zoo import MIN_DETECTIONS, SIZE_WH, THRESHOLDS, Row, compare_model, header

# Four versions of an image of 320x224.
AUGMENTATION = {"MIN_SIZES": [224, 288], "MAX_SIZE": 4000, "FLIP": True}


def main(arguments: list[str]) -> int:
    """Print a row for each config, given by its path in the folder."""
    folder = Path(arguments[0])
    print(*header(), sep="\n")
    rows = []
    for name in arguments[1:]:
        rows.append(_compare(folder / name, name))
        print(rows[-1], flush=True)
    return 0 if all(row.is_ok for row in rows) else 1


def _compare(config: Path, name: str) -> Row:
    """Compare at the highest score threshold that gives enough detections."""
    image = np.array(Image.open(SAMPLES[1]).convert("RGB").resize(SIZE_WH))
    with tempfile.TemporaryDirectory() as folder:
        for threshold in THRESHOLDS:
            lowered = _with_threshold(config, threshold, Path(folder))
            upstream = UpstreamModel(lowered, None)
            if len(_calibrate(upstream, image)) >= MIN_DETECTIONS:
                break
        checkpoint = Path(folder) / "model_final.pth"
        torch.save({"model": upstream.model.state_dict()}, checkpoint)
        del upstream
        model = GoldenModel(name, lowered, checkpoint, (), augment=True)
        return Row(name, compare_model(model, image))


def _calibrate(upstream: UpstreamModel, image: RGBImage) -> Tensor:
    """Give each frozen norm of the backbone the statistics of an image; return its scores.

    With these, activations of random weights stay in the range of trained ones, and rounding does
    not grow from layer to layer.
    """

    def measure(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        [features] = inputs
        norm.get_buffer("running_mean").copy_(features.mean((0, 2, 3)))
        norm.get_buffer("running_var").copy_(features.var((0, 2, 3)) + 1e-3)

    norms = [each for each in upstream.model.backbone.modules() if hasattr(each, "running_var")]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    scores = torch.from_numpy(upstream.predict(image).scores)
    for hook in hooks:
        hook.remove()
    return scores


def _with_threshold(config: Path, threshold: float, folder: Path) -> Path:
    changed = {
        "_BASE_": str(config.resolve()),
        "INPUT": {"MIN_SIZE_TEST": 0},
        "MODEL": {"WEIGHTS": "", "ROI_HEADS": {"SCORE_THRESH_TEST": threshold}},
        "TEST": {"AUG": AUGMENTATION},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(changed), encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
