"""The noise of upstream: deviations between its own results on one machine."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tests.goldens.comparison import mask_error_px, mask_iou, pairs
from tests.goldens.upstream import UpstreamModel, UpstreamResult

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Noise:
    """The largest deviations of boxes, scores and keypoints among matching detections.

    unmatched: detections of one result without a match in the other one; mask_iou: the lowest IoU
    of matching masks, 1 without masks; mask_error_px: the most pixels in which two of them differ;
    keypoint_error_px: 0 without keypoints.
    """

    box_error_px: float
    score_error: float
    unmatched: int
    mask_iou: float
    mask_error_px: int
    keypoint_error_px: float


def measure_noise(
    upstream: UpstreamModel, image: npt.NDArray[np.uint8], expected: UpstreamResult
) -> Noise:
    """Run upstream again with other convolution kernels and with another memory layout.

    Args:
        upstream: the model; its weights change their memory layout.
        image: UInt8[H, W, 3] RGB.
        expected: upstream's result with its own settings.
    """
    noises = [_deviation(expected, other) for other in _other_results(upstream, image)]
    return Noise(
        max(noise.box_error_px for noise in noises),
        max(noise.score_error for noise in noises),
        max(noise.unmatched for noise in noises),
        min(noise.mask_iou for noise in noises),
        max(noise.mask_error_px for noise in noises),
        max(noise.keypoint_error_px for noise in noises),
    )


def _other_results(
    upstream: UpstreamModel, image: npt.NDArray[np.uint8]
) -> Iterator[UpstreamResult]:
    with torch.backends.mkldnn.flags(enabled=False):
        yield upstream.predict(image)
    upstream.model.to(memory_format=torch.channels_last)
    yield upstream.predict(image)


def _deviation(expected: UpstreamResult, other: UpstreamResult) -> Noise:
    matched = pairs(expected, other)
    boxes = [np.abs(expected.boxes_xyxy[e] - other.boxes_xyxy[o]).max() for e, o in matched]
    scores = [abs(expected.scores[e] - other.scores[o]) for e, o in matched]
    masks = [
        (expected.masks[e], other.masks[o])
        for e, o in matched
        if expected.masks is not None and other.masks is not None
    ]
    keypoints = [
        np.abs(expected.keypoints[e, :, :2] - other.keypoints[o, :, :2]).max()
        for e, o in matched
        if expected.keypoints is not None and other.keypoints is not None
    ]
    return Noise(
        float(max(boxes, default=0.0)),
        float(max(scores, default=0.0)),
        max(len(expected.scores), len(other.scores)) - len(matched),
        min((mask_iou(*both) for both in masks), default=1.0),
        max((mask_error_px(*both) for both in masks), default=0),
        float(max(keypoints, default=0.0)),
    )


def describe_machine() -> str:
    """The CPU, the threads of torch and its version."""
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if CPU_INFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = names[0] if names else "unknown CPU"
    capability = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    return f"{cpu} ({capability}), {threads} threads, torch {torch.__version__}"
