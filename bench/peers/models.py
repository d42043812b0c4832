"""The models that ours and its peers serve."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench.peers.torchvision_model import MaskRCNNResNet50FPN
from handler.rcnn.build import build_network
from handler.rcnn.config import load_config
from tests.goldens.seeded_weights import seeded_weights

REPOSITORY = Path(__file__).resolve().parents[2]
SHAPES = REPOSITORY / "models" / "shapes"
R50_CONFIG = REPOSITORY / "bench" / "mask_rcnn_r50_fpn.yaml"

# torchvision's names of what `seeded_weights` knows by Detectron2's.
SEEDED_AS = {
    ".bn1.": ".bn1.norm.",
    ".bn2.": ".bn2.norm.",
    ".bn3.": ".bn3.norm.",
    ".downsample.1.": ".shortcut.norm.",
    ".cls_logits.": ".objectness_logits.",
    "rpn.head.bbox_pred.": "rpn.head.anchor_deltas.",
    ".mask_fcn_logits.": ".predictor.",
}
# With which a hundred scores of a picture are above the 0.5 that TorchServe's handler asks for.
CLASS_GAIN = 1.5


@dataclass(frozen=True)
class Model:
    """A model as users of Detectron2 have it, and the pictures that are sent to it.

    `pictures` are JPEG files; `classes` None where the classes have no names.
    """

    name: str
    config: Path
    checkpoint: Path
    classes: Path | None
    pictures: tuple[Path, ...]


def shapes(_folder: Path) -> Model:
    """The bundled model, and its samples of three sizes."""
    samples = tuple(sorted((SHAPES / "samples").glob("*.jpg")))
    classes = SHAPES / "classes.json"
    return Model("shapes", SHAPES / "config.yaml", SHAPES / "model_final.pth", classes, samples)


def r50(folder: Path) -> Model:
    """Mask R-CNN with ResNet-50 and a pyramid at 800/1333; writes seeded weights into a folder.

    Its picture is one of 640x480 with 100 detections.
    """
    state = build_network(load_config(R50_CONFIG)).state_dict()
    checkpoint = folder / "r50.pth"
    torch.save({"model": _seeded(state, str)}, checkpoint)
    return Model("r50", R50_CONFIG, checkpoint, None, (SHAPES / "samples" / "shapes_01.jpg",))


MODELS: Mapping[str, Callable[[Path], Model]] = {"shapes": shapes, "r50": r50}


def write_torchvision_weights(path: Path) -> None:
    """Seeded weights for `MaskRCNNResNet50FPN`, as it finds a hundred objects in R50's picture."""
    weights = _seeded(MaskRCNNResNet50FPN().state_dict(), _as_detectron2)
    for name in ("weight", "bias"):
        weights[f"roi_heads.box_predictor.cls_score.{name}"] *= CLASS_GAIN
    torch.save(weights, path)


def _seeded(state: Mapping[str, Tensor], known_as: Callable[[str], str]) -> dict[str, Tensor]:
    drawn = seeded_weights({known_as(name): tuple(tensor.shape) for name, tensor in state.items()})
    return {name: torch.from_numpy(drawn[known_as(name)]) for name in state}


def _as_detectron2(name: str) -> str:
    for theirs, known in SEEDED_AS.items():
        name = name.replace(theirs, known)
    return name
