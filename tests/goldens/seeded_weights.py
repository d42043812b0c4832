"""Random but reproducible weights of a network, seeded by the names of the parameters.

The same names and shapes give the same weights everywhere, so goldens need no stored checkpoint.
"""

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

# Standard deviations relative to He initialization, by the end of a name; the first match counts.
# They are large enough for distinct classes, boxes and masks, and small enough for scores below 1.
GAINS = {
    "fcos_head.cls_logits.weight": 1.0,
    "maskiou.weight": 0.05,
    "fcos_head.ctrness.weight": 1.0,
    "fcos_head.bbox_pred.weight": 0.3,
    "head.cls_score.weight": 0.004,
    "head.bbox_pred.weight": 0.0015,
    "score_lowres.weight": 0.004,
    "conv2_offset.weight": 0.1,
    "objectness_logits.weight": 2.0,
    "anchor_deltas.weight": 0.05,
    "cls_score.weight": 0.3,
    "bbox_pred.weight": 0.1,
    "predictor.weight": 6.0,
    "affine_rcnn.weight": 6.0,
    "affine_rpn.weight": 6.0,
    "pos_embed": 30.0,
    "query_feat.weight": 60.0,
    "query_embed.weight": 30.0,
    "class_embed.weight": 3.0,
    "_bbox_embed.layers.2.weight": 0.3,
    "cross_attn.output_proj.weight": 0.2,
    "decoder.ref_point_head.layers.1.weight": 0.5,
    "class_logits.weight": 2.0,
    "bboxes_delta.weight": 0.3,
    "init_proposal_features.weight": 16.0,
    "body_conv_fcn1.weight": 0.03,
    "body_conv_fcn2.weight": 0.01,
    "u_lowres.weight": 0.1,
    "v_lowres.weight": 0.1,
}
# Of queries that are the logits of a box's coordinates (Mask DINO).
BOX_QUERIES, BOX_QUERY_GAIN = "query_embed.weight", 1.5
# Scales and variances of norms, with values about 1; ViTDet and RetinaNet number their norms.
ABOUT_ONE = (
    "running_var",
    ".gamma",
    "gamma_1",
    "gamma_2",
    "downsample_layers.0.1.weight",
    ".scale",
    "fcos_head.bbox_pred.bias",
    "tower.1.weight",
    "tower.4.weight",
    *(f"tower.{layer}.{level}.weight" for layer in (1, 4) for level in range(4)),
    "norm.weight",
    "norm0.weight",
    "norm1.weight",
    "norm2.weight",
    "norm3.weight",
    *(f"input_proj.{level}.1.weight" for level in range(6)),
    *(f"_module.{layer}.weight" for layer in (1, 4, 7)),
    "simfp_2.1.weight",
    "subnet.1.weight",
    "subnet.4.weight",
)
# Centres and sizes of boxes as shares of the image's.
SHARES = "init_proposal_boxes.weight"


def seeded_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, FloatArray]:
    """Draw a Float32 array for every name and shape of a network's state dict."""
    return {name: _draw(name, tuple(shape)) for name, shape in shapes.items()}


def _draw(name: str, shape: tuple[int, ...]) -> FloatArray:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    random = np.random.default_rng(seed)
    if len(shape) == 1 and name.endswith(ABOUT_ONE):
        return random.uniform(0.6, 1.4, shape).astype(np.float32)
    if len(shape) == 1:
        return random.normal(0.0, 0.1, shape).astype(np.float32)
    if name.endswith(SHARES):
        return random.uniform(0.2, 0.8, shape).astype(np.float32)
    gain = next((gain for end, gain in GAINS.items() if name.endswith(end)), 1.0)
    if name.endswith(BOX_QUERIES) and shape[1] == 4:
        gain = BOX_QUERY_GAIN
    # He et al. 2015. Damped residual branches keep the activations of deep networks in range.
    damping = 0.3 if "conv3." in name or ".conv2.weight" in name else 1.0
    fan_in = math.prod(shape[1:])
    return (random.normal(0.0, 1.0, shape) * gain * damping * math.sqrt(2.0 / fan_in)).astype(
        np.float32
    )
