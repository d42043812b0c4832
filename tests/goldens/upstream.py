"""The upstream `detectron2` package, as the reference for d2serve's networks."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from d2serve.building.lazy_yaml import is_lazy_config
from d2serve.building.renamed_weights import of_fcos
from d2serve.detector.detectron2.model import Resizing
from tests.goldens.deformable import deformable_convolution
from tests.goldens.seeded_weights import seeded_weights

NO_WEIGHTS = ("cell_anchors", "num_batches_tracked", "relative_position_index")


@dataclass(frozen=True)
class UpstreamResult:
    """Detectron2's result for one image, best first.

    boxes_xyxy: Float32[N, 4] in the image's pixels; scores: Float32[N]; classes: Int64[N];
    masks: Bool[N, H, W] or None; keypoints: Float32[N, K, 3] or None; semantic: Int32[H, W] or
    None; panoptic: Int32[H, W] segment ids or None; mask_scores: Float32[N] or None.
    """

    boxes_xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    masks: npt.NDArray[np.bool_] | None = None
    keypoints: npt.NDArray[np.float32] | None = None
    semantic: npt.NDArray[np.int32] | None = None
    panoptic: npt.NDArray[np.int32] | None = None
    mask_scores: npt.NDArray[np.float32] | None = None

    @property
    def has_content(self) -> bool:
        """True if there are detections or maps, and every map has several values."""
        maps = [entry for entry in (self.semantic, self.panoptic) if entry is not None]
        return (len(self.scores) > 0 or bool(maps)) and all(len(np.unique(m)) > 1 for m in maps)


class UpstreamModel:
    """A model built, loaded and run by `detectron2`, as in its DefaultPredictor."""

    def __init__(
        self, config: Path, checkpoint: Path | None, *, augment: bool = False, together: int = 1
    ) -> None:
        """Load a model.

        Args:
            config: keyed or lazy.
            checkpoint: if None, the weights are seeded by the parameters' names.
            augment: whether `predict` runs the versions of an image that TEST.AUG describes.
            together: number of versions in a batch, which are padded to the largest.
        """
        from detectron2.checkpoint import DetectionCheckpointer
        from detectron2.data.transforms import ResizeShortestEdge

        _support_modulated_convolutions_on_the_cpu()
        model, resizing = _build_lazy(config) if is_lazy_config(config) else _build(config)
        self.input_format = resizing.channel_order
        self.model = model.eval()
        self.resize = ResizeShortestEdge([resizing.min_size] * 2, resizing.max_size)
        if checkpoint is not None:
            DetectionCheckpointer(self.model).load(str(checkpoint))
        else:
            self._seed_weights()
        self.augmented = _augmented(config, self.model, together) if augment else None

    def _seed_weights(self) -> None:
        state = self.model.state_dict()
        # FCOS has other names in d2serve, and the names are the seeds.
        is_fcos = "head.ctrness.weight" in state
        own_names = {
            name: of_fcos(name) if is_fcos else name
            for name in state
            if not any(part in name for part in NO_WEIGHTS)
        }
        arrays = seeded_weights({own: tuple(state[n].shape) for n, own in own_names.items()})
        weights = {name: torch.from_numpy(arrays[own]) for name, own in own_names.items()}
        self.model.load_state_dict({**state, **weights}, strict=True)

    def predict(self, image: npt.NDArray[np.uint8]) -> UpstreamResult:
        """Detect in UInt8[H, W, 3] RGB, or with any fourth channel in UInt8[H, W, 4]."""
        ordered = np.ascontiguousarray(_ordered(image, self.input_format))
        height, width = image.shape[:2]
        sizes = {"height": height, "width": width}
        if self.augmented is not None:
            # Float images would be resized without Pillow.
            pixels = torch.as_tensor(ordered.transpose(2, 0, 1).copy())
            with torch.no_grad():
                [output] = self.augmented([{"image": pixels, **sizes}])
            # Upstream removes empty boxes only of models with masks.
            instances = output["instances"]
            return _result({"instances": instances[instances.pred_boxes.nonempty()]})
        resized = self.resize.get_transform(ordered).apply_image(ordered)
        tensor = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
        with torch.no_grad():
            [output] = self.model([{"image": tensor, **sizes}])
        return _result(output)


def _ordered(image: npt.NDArray[np.uint8], input_format: str) -> npt.NDArray[np.uint8]:
    """The channels of an image as upstream's `read_image` orders them."""
    if input_format == "L":
        return np.array(Image.fromarray(image[:, :, :3]).convert("L"))[:, :, None]
    return image[:, :, [2, 1, 0, 3][: image.shape[2]]] if input_format == "BGR" else image


def _augmented(config: Path, model: Any, together: int) -> Any:
    from detectron2.modeling import GeneralizedRCNNWithTTA

    return GeneralizedRCNNWithTTA(_read(config), model, batch_size=together)


def _read(config: Path) -> Any:
    from detectron2.config import get_cfg

    cfg = get_cfg()
    cfg.merge_from_file(str(config))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    return cfg


def _build(config: Path) -> tuple[Any, Resizing]:
    from detectron2.modeling import build_model

    cfg = _read(config)
    resizing = Resizing(cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    return build_model(cfg), resizing


def _build_lazy(config: Path) -> tuple[Any, Resizing]:
    from detectron2.config import LazyConfig, instantiate

    cfg = LazyConfig.load(str(config))
    return instantiate(cfg.model), Resizing(**cfg.input)


def _support_modulated_convolutions_on_the_cpu() -> None:
    """Replace upstream's kernel for deformable convolutions of version 2, which needs a GPU."""
    from detectron2.layers import deform_conv

    def by_sampling(features: Any, offsets: Any, modulation: Any, weight: Any, *shape: Any) -> Any:
        _bias, stride, _padding, dilation, *_groups = shape
        return deformable_convolution(
            features, offsets, weight, stride=stride, dilation=dilation, modulation=modulation
        )

    deform_conv.modulated_deform_conv = by_sampling


def _result(output: dict[str, Any]) -> UpstreamResult:
    result = _instances(output)
    if "sem_seg" in output:
        semantic = output["sem_seg"].argmax(dim=0).to(torch.int32).numpy()
        result = replace(result, semantic=semantic)
    if "panoptic_seg" in output:
        result = replace(result, panoptic=output["panoptic_seg"][0].to(torch.int32).numpy())
    return result


def _instances(output: dict[str, Any]) -> UpstreamResult:
    if "proposals" in output:
        proposals = output["proposals"]
        scores = proposals.objectness_logits.sigmoid().numpy()
        classes = np.zeros(len(scores), dtype=np.int64)
        return UpstreamResult(proposals.proposal_boxes.tensor.numpy(), scores, classes)
    if "instances" not in output:
        empty = np.zeros(0, dtype=np.float32)
        return UpstreamResult(empty.reshape(0, 4), empty, np.zeros(0, dtype=np.int64))
    instances = output["instances"]
    return UpstreamResult(
        boxes_xyxy=instances.pred_boxes.tensor.numpy(),
        scores=instances.scores.numpy(),
        classes=instances.pred_classes.numpy(),
        masks=instances.pred_masks.numpy() if instances.has("pred_masks") else None,
        mask_scores=instances.mask_scores.numpy() if instances.has("mask_scores") else None,
        keypoints=instances.pred_keypoints.numpy() if instances.has("pred_keypoints") else None,
    )
