"""The detector on the upstream `detectron2` package, for models that our own network lacks.

The one module of `handler` that knows the package, which is imported only where it is used.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handler.detections import Detections
from handler.detector.answers import BOX_MASKS, Answer, detections_of, label_segments
from handler.detector.interface import Outcome, Prepared, Size
from handler.detector.native import CONFIG_FILE, PLAIN_WEIGHTS_FILE, WEIGHTS_FILE
from handler.detector.running import BatchRunner
from handler.detector.upstream_limits import limits_of
from handler.pictures import Picture
from handler.rcnn.checkpoint import CheckpointError, is_derived, read_npz, read_weights
from handler.rcnn.image_batch import resize_picture
from handler.rcnn.yaml_config import ConfigError
from handler.settings import Settings
from handler.telemetry.forwards import ForwardLog

LAZY_CONFIG_FILE = "lazy_config.yaml"
CHANNEL_ORDERS = ("RGB", "BGR")
INSTALL = "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2.git"
# Projects that come with the package, and what adds their keys to a config.
PROJECTS = {
    "detectron2.projects.point_rend": "add_pointrend_config",
    "detectron2.projects.deeplab": "add_deeplab_config",
    "detectron2.projects.panoptic_deeplab": "add_panoptic_deeplab_config",
}


class PackageError(RuntimeError):
    """The `detectron2` package is missing or cannot run here."""


@dataclass(frozen=True)
class Resizing:
    """How a picture enters the network; sizes in pixels, `min_size` 0 means no resize."""

    channel_order: str
    min_size: int
    max_size: int


class UpstreamDetector:
    """Pictures in, detections out, many at a time."""

    def __init__(
        self, model: Any, resizing: Resizing, device: torch.device, settings: Settings
    ) -> None:
        self.model = model
        self.resizing = resizing
        self.device = device
        self.limits = limits_of(model)
        self.runner = BatchRunner(self._network, _padding(model, resizing), settings)

    @classmethod
    def from_folder(
        cls, folder: Path, device: torch.device, settings: Settings
    ) -> "UpstreamDetector":
        """Loads the config and the weights of an unpacked archive.

        Raises:
            PackageError: the package cannot be imported.
            ConfigError, CheckpointError: either does not fit.
        """
        model, resizing = build_model(folder, device)
        plain = folder / PLAIN_WEIGHTS_FILE
        stored = read_npz(plain) if plain.exists() else read_weights(folder / WEIGHTS_FILE)
        load_weights(model, stored)
        return cls(model, resizing, device, settings)

    @property
    def num_classes(self) -> int:
        """How many classes of instances the model tells apart; 0 where it finds none."""
        return self.limits.num_classes

    @property
    def num_stuff_classes(self) -> int:
        """How many classes of stuff the model tells apart; 0 where it does not segment."""
        return self.limits.num_stuff_classes

    @property
    def score_threshold(self) -> float:
        """The least score, 0..1, that the network lets through."""
        return self.limits.score_threshold

    @property
    def max_detections(self) -> int:
        """How many detections of one picture the network gives at most."""
        return self.limits.max_detections

    @property
    def forwards(self) -> ForwardLog:
        """What went through the network together since it was last asked."""
        return self.runner.forwards

    def warm_up(self) -> None:
        """Runs one grey picture, so that the first client does not wait for one-time set-up.

        Raises:
            Exception: whatever the package raises where the network cannot run.
        """
        side = self.resizing.min_size or 256
        picture = np.full((side, side, 3), 127, dtype=np.uint8)
        prepared = self.prepare(picture)
        self._network([prepared.image], [prepared.size_hw])

    def prepare(self, picture: Picture) -> Prepared:
        """Resizes UInt8[H, W, 3] RGB as the network wants it."""
        return Prepared(
            resize_picture(picture, self.resizing), (picture.shape[0], picture.shape[1])
        )

    def stream(self, pictures: Iterable[Prepared]) -> Iterator[tuple[int, Outcome]]:
        """Each picture's position and outcome, micro-batch by micro-batch."""
        return self.runner.run(pictures)

    def detect(self, pictures: Sequence[Picture]) -> list[Outcome]:
        """Detects in UInt8[H, W, 3] RGB pictures of any sizes; outcomes in the same order."""
        return self.runner.run_in_order(map(self.prepare, pictures))

    def _network(self, images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[Detections]:
        inputs = [
            {"image": image.to(self.device), "height": height, "width": width}
            for image, (height, width) in zip(images, sizes_hw, strict=True)
        ]
        with torch.inference_mode():
            answers = _answers(self.model, inputs)
            return [detections_of(*pair) for pair in zip(answers, sizes_hw, strict=True)]


def package_version() -> str:
    """The version of the installed package.

    Raises:
        PackageError: there is none, or it does not load, as when it was built for another torch.
    """
    try:
        import detectron2
        import detectron2.modeling
    except ImportError as error:
        raise PackageError(
            f"this model needs the detectron2 package, which cannot be imported here ({error}); "
            f"install it where the model runs: {INSTALL}"
        ) from error
    return detectron2.__version__


def build_model(folder: Path, device: torch.device) -> tuple[Any, Resizing]:
    """The network that a folder's config describes, without weights, ready for inference.

    Raises:
        PackageError: the package cannot be imported.
        ConfigError: the package cannot build it.
    """
    package_version()
    lazy = folder / LAZY_CONFIG_FILE
    try:
        model, resizing = _build_lazy(lazy) if lazy.exists() else _build_yaml(folder / CONFIG_FILE)
    except ConfigError:
        raise
    except Exception as error:  # configs name any code, which raises anything
        raise ConfigError(
            f"detectron2 cannot build this config: {type(error).__name__}: {error}"
        ) from error
    if resizing.channel_order not in CHANNEL_ORDERS:
        raise ConfigError(
            f"the input format is {resizing.channel_order!r} (supported: RGB and BGR)"
        )
    return model.eval().requires_grad_(False).to(device), resizing


def load_weights(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Copies weights into the network; names of older versions are converted by its modules.

    Raises:
        CheckpointError: listing every missing, unexpected and misshaped name.
    """
    try:
        unfit = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not fit the config: {error}") from error
    problems = [
        *(f"missing: {name}" for name in unfit.missing_keys if not is_derived(name)),
        *(f"unexpected: {name}" for name in unfit.unexpected_keys if not is_derived(name)),
    ]
    if problems:
        raise CheckpointError(
            "the checkpoint does not fit the config (was it trained with another one?):\n  "
            + "\n  ".join(problems)
        )


def _build_yaml(path: Path) -> tuple[Any, Resizing]:
    from detectron2.modeling import build_model as build

    cfg = _read_cfg(path)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    # It is for training alone, and asks for the dataset.
    cfg.MODEL.ROI_BOX_HEAD.USE_FED_LOSS = False
    resizing = Resizing(cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    return build(cfg), resizing


def _build_lazy(path: Path) -> tuple[Any, Resizing]:
    from detectron2.config import LazyConfig, instantiate

    config = LazyConfig.load(str(path))
    return instantiate(config.model), Resizing(**config.input)


def _read_cfg(path: Path) -> Any:
    """The config among the keys of the package, or else of the first project that has them all.

    A project's keys are not added where they are not needed, because some change defaults.
    """
    from detectron2.config import get_cfg

    problems = []
    for name, add_keys in _key_sets():
        cfg = get_cfg()
        try:
            add_keys(cfg)
            cfg.merge_from_file(str(path))
        except (ImportError, KeyError, ValueError, AssertionError) as error:
            problems.append(f"{name}: {error.args[0] if error.args else type(error).__name__}")
        else:
            return cfg
    raise ConfigError("detectron2 does not take this config:\n  " + "\n  ".join(problems))


def _key_sets() -> Iterator[tuple[str, Callable[[Any], None]]]:
    yield "detectron2", lambda cfg: None
    for module, function in PROJECTS.items():
        yield module, partial(_add_project_keys, module, function)


def _add_project_keys(module: str, function: str, cfg: Any) -> None:
    getattr(import_module(module), function)(cfg)


def _padding(model: Any, resizing: Resizing) -> Callable[[Size], Size]:
    """How the model pads a picture of a size when it runs alone.

    Raises:
        ConfigError: pictures would be cut, because they may be larger than the network's square.
    """
    divisibility = getattr(model, "size_divisibility", 0)  # Panoptic-DeepLab's own
    constraints: Mapping[str, int] = {}
    if divisibility <= 0:
        divisibility = model.backbone.size_divisibility
        constraints = model.backbone.padding_constraints
    square = constraints.get("square_size", 0)
    if square and (resizing.min_size == 0 or resizing.max_size > square):
        raise ConfigError(
            f"pictures may be larger than the network's square of {square} px; "
            f"give ResizeShortestEdge a max_size of {square}"
        )
    return partial(_padded_size, divisibility, constraints)


def _padded_size(divisibility: int, constraints: Mapping[str, int], size_hw: Size) -> Size:
    from detectron2.structures import ImageList

    picture = torch.empty((1, *size_hw), device="meta")
    alone = ImageList.from_tensors([picture], divisibility, padding_constraints=constraints)
    return alone.tensor.shape[-2], alone.tensor.shape[-1]


def _answers(model: Any, inputs: list[dict[str, Any]]) -> list[Answer]:
    """What the model's own forward gives, but masks of R-CNNs stay small and over their boxes."""
    from detectron2.modeling import GeneralizedRCNN, PanopticFPN

    if isinstance(model, PanopticFPN):
        found, semantics = model.inference(inputs, do_postprocess=False)
        return [
            _panoptic_answer(model, *each) for each in zip(found, semantics, inputs, strict=True)
        ]
    if isinstance(model, GeneralizedRCNN):
        found = model.inference(inputs, do_postprocess=False)
        return [{"instances": _to_picture(*pair)} for pair in zip(found, inputs, strict=True)]
    return [_with_segments(model, answer) for answer in model(inputs)]


def _to_picture(found: Any, given: Mapping[str, Any]) -> Any:
    """`detector_postprocess` without its pasting: under another name it leaves masks alone."""
    from detectron2.modeling import detector_postprocess

    if found.has("pred_masks"):
        masks = found.pred_masks
        found.remove("pred_masks")
        found.set(BOX_MASKS, masks)
    return detector_postprocess(found, given["height"], given["width"])


def _panoptic_answer(model: Any, found: Any, semantic: Tensor, given: Mapping[str, Any]) -> Answer:
    """As `PanopticFPN.inference`, but only those masks are pasted that the map needs."""
    from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
    from detectron2.modeling.postprocessing import sem_seg_postprocess
    from detectron2.structures import Instances, ROIMasks

    size_hw = given["height"], given["width"]
    semantic = sem_seg_postprocess(semantic, found.image_size, *size_hw)
    found = _to_picture(found, given)
    sure = found[found.scores >= model.combine_instances_score_thresh]
    pasted = ROIMasks(sure.get(BOX_MASKS)[:, 0]).to_bitmasks(sure.pred_boxes, *size_hw).tensor
    panoptic = combine_semantic_and_instance_outputs(
        Instances(size_hw, scores=sure.scores, pred_classes=sure.pred_classes, pred_masks=pasted),
        semantic.argmax(dim=0),
        model.combine_overlap_thresh,
        model.combine_stuff_area_thresh,
        model.combine_instances_score_thresh,
    )
    return {"instances": found, "sem_seg": semantic, "panoptic_seg": panoptic}


def _with_segments(model: Any, answer: Answer) -> Answer:
    """Panoptic-DeepLab says what a segment is in the map itself, and no more."""
    if "panoptic_seg" not in answer or answer["panoptic_seg"][1] is not None:
        return answer
    labels = answer["panoptic_seg"][0]
    things = set(model.meta.thing_dataset_id_to_contiguous_id.values())
    return {**answer, "panoptic_seg": label_segments(labels, things, model.meta.label_divisor)}
