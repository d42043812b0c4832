"""A network's outputs -> detections on the host."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2serve.detections import Detections
from d2serve.detector.base import Size
from d2serve.detector.queries import query_detections
from d2serve.masks.densepose import ChartOutputs
from d2serve.masks.image_masks import threshold_logits
from d2serve.masks.panoptic import combine
from d2serve.masks.resampling import Resampling
from d2serve.masks.runs import THRESHOLD, Runs
from d2serve.model.config import ModelConfig, PanopticConfig
from d2serve.model.heads_config import DensePoseConfig
from d2serve.model.mask_dino_config import MaskDINOConfig
from d2serve.model.mask_former_config import MaskFormerConfig
from d2serve.model.preprocessing import to_host
from d2serve.model.structures import ImageMaskOutput, ModelOutput


def detections_of(
    outputs: Sequence[ModelOutput], sizes_hw: Sequence[Size], config: ModelConfig
) -> list[Detections]:
    """Convert the outputs of a batch; instances with an empty box are dropped.

    Args:
        outputs: one per image.
        sizes_hw: original heights and widths of the images.
        config: the network's configuration.
    """
    family = config.family
    if isinstance(family, MaskFormerConfig | MaskDINOConfig):
        queries = [output.queries for output in outputs if output.queries is not None]
        return [query_detections(image, family.inference) for image in queries]
    detections = [
        _detections(fields, size_hw, output.image_masks, config.densepose)
        for fields, size_hw, output in zip(copy_to_host(outputs), sizes_hw, outputs, strict=True)
    ]
    if isinstance(family, PanopticConfig):
        return [_with_panoptic(image, family) for image in detections]
    return detections


def copy_to_host(outputs: Sequence[ModelOutput]) -> list[dict[str, Any]]:
    """Copy instances and pixel classes of all images at once, by the names of `Detections`."""
    fields = [_fields(output) for output in outputs]
    on_host = iter(to_host([tensor for image in fields for tensor in image.values()]))
    return [{name: next(on_host).numpy() for name in image} for image in fields]


def _fields(output: ModelOutput) -> dict[str, Tensor]:
    """The tensors by the names of the fields of `Detections`."""
    instances = output.instances
    fields = {
        "boxes_xyxy": instances.boxes,
        "scores": instances.scores,
        "classes": instances.classes,
        "masks": instances.masks,
        "mask_scores": instances.mask_scores,
        "keypoints": instances.keypoints,
        "surfaces": instances.densepose,
        "semantic": output.semantic,
    }
    return {name: tensor for name, tensor in fields.items() if tensor is not None}


def _detections(
    fields: dict[str, Any],
    size_hw: Size,
    image_masks: ImageMaskOutput | None,
    densepose: DensePoseConfig | None,
) -> Detections:
    semantic = fields.pop("semantic", None)
    boxes = fields["boxes_xyxy"]
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if not has_area.all():
        fields = {name: values[has_area] for name, values in fields.items()}
    # A GPU's integers are copied as float32.
    fields["classes"] = fields["classes"].astype(np.int64, copy=False)
    if semantic is not None:
        fields["semantic"] = semantic.astype(np.int32, copy=False)
    if densepose is not None:
        fields["surfaces"] = ChartOutputs(
            fields["surfaces"],
            densepose.coarse_channels,
            densepose.upscale,
            densepose.confidence_floor,
        )
    if image_masks is not None:
        fields["mask_runs"] = _runs(image_masks, torch.from_numpy(has_area))
    return Detections(size_hw, **fields)


def _runs(masks: ImageMaskOutput, is_kept: Tensor) -> Runs:
    probabilities = masks.probabilities[is_kept.to(masks.probabilities.device)]
    height, width = probabilities.shape[1:]
    resampling = Resampling(
        (height, width), masks.padded_hw, masks.size_hw, masks.original_hw, aligned=True
    )
    return threshold_logits(probabilities, resampling, THRESHOLD).runs


def _with_panoptic(detections: Detections, config: PanopticConfig) -> Detections:
    assert detections.semantic is not None
    panoptic = combine(
        detections,
        detections.semantic,
        config.overlap_threshold,
        config.stuff_area_limit,
        config.instance_threshold,
    )
    return replace(detections, panoptic=panoptic)
