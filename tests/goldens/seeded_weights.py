"""Random but reproducible weights for a network, drawn from each parameter's name.

The same names and shapes give the same weights everywhere, so goldens need no stored checkpoint.
"""

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

# Spread enough that some classes, boxes and mask pixels stand out from the rest, and not so far
# that scores are 1 alike. The first end that fits counts.
GAINS = {
    "head.cls_score.weight": 0.004,
    "head.bbox_pred.weight": 0.0015,
    "score_lowres.weight": 0.004,
    "conv2_offset.weight": 0.1,
    "objectness_logits.weight": 2.0,
    "anchor_deltas.weight": 0.05,
    "cls_score.weight": 0.3,
    "bbox_pred.weight": 0.1,
    "predictor.weight": 6.0,
    "pos_embed": 30.0,
}
# What is about 1: the scales of norms, which ViTDet numbers, and their variances.
ABOUT_ONE = ("running_var", "norm.weight", "norm1.weight", "norm2.weight", "simfp_2.1.weight")


def seeded_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, FloatArray]:
    """Name -> Float32 array for every name -> shape of a network's state dict."""
    return {name: _draw(name, tuple(shape)) for name, shape in shapes.items()}


def _draw(name: str, shape: tuple[int, ...]) -> FloatArray:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    random = np.random.default_rng(seed)
    if name.endswith(ABOUT_ONE):
        return random.uniform(0.6, 1.4, shape).astype(np.float32)
    if len(shape) == 1:
        return random.normal(0.0, 0.1, shape).astype(np.float32)
    gain = next((gain for end, gain in GAINS.items() if name.endswith(end)), 1.0)
    # He et al. 2015; residual branches are damped so that deep stacks neither fade nor explode.
    damping = 0.3 if "conv3." in name or ".conv2.weight" in name else 1.0
    fan_in = math.prod(shape[1:])
    return (random.normal(0.0, 1.0, shape) * gain * damping * math.sqrt(2.0 / fan_in)).astype(
        np.float32
    )
