"""Load a checkpoint's weights into a network."""

from collections import Counter
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from d2serve.building.renamed_weights import name_in_network
from d2serve.building.weight_mismatch import describe_mismatch
from d2serve.errors import CheckpointError
from d2serve.model.config import ModelConfig
from d2serve.model.layers import FrozenBatchNorm2d
from d2serve.model.meta_arch import SkipInit, build_network
from d2serve.model.network import Network
from d2serve.model.weights import Weights, load_weights

# Some checkpoints contain them, but the config determines them, or inference does not need them.
DERIVED_NAMES = ("pixel_mean", "pixel_std")
DERIVED_PARTS = (
    "anchor_generator.cell_anchors.",
    "densepose_predictor.kappa_u_lowres.",
    "densepose_predictor.kappa_v_lowres.",
    "densepose_predictor.sigma_2_lowres.",
)
# Modules that only training uses: domain discriminators, contrastive branches, box uncertainties,
# embeddings of noisy labels, DeFRCN's affine layers if they are off, and further names of Mask
# DINO's shared layers.
UNUSED_MODULES = (
    "D_img",
    "affine_rcnn",
    "affine_rpn",
    "criterion",
    "img_align",
    "ins_align",
    "mask_branch.logits",
    "mask_branch.seg_head",
    "mask_head._iter",
    "mask_head.sizes_of_interest",
    "roi_heads.box_predictor.bbox_pred_std",
    "roi_heads.encoder",
    "roi_heads.prototype",
    "roi_heads.prototype_label",
    "roi_heads.queue",
    "roi_heads.queue_label",
    "roi_heads.queue_ptr",
    "sem_seg_head.predictor.bbox_embed",
    "sem_seg_head.predictor.decoder.bbox_embed",
    "sem_seg_head.predictor.decoder.norm",
    "sem_seg_head.predictor.label_enc",
)
DERIVED_SUFFIXES = (
    ".num_batches_tracked",
    ".fed_loss_cls_weights",
    ".relative_position_index",
)


def build_from_checkpoint(config: ModelConfig, weights: Weights, device: torch.device) -> Network:
    """Build a network that is ready for inference on `device`.

    Args:
        config: the network.
        weights: those of a checkpoint; see `read_checkpoint`.
        device: where the network runs.

    Raises:
        CheckpointError: the weights do not match the config.
    """
    with SkipInit():
        model = build_network(config)
    load_from_checkpoint(model, weights)
    return model.eval().requires_grad_(False).to(device)


def load_from_checkpoint(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a checkpoint's weights as float32; those that are float32 are not copied.

    A name may lack the first modules of the network's name, as those of converted checkpoints do
    (`detectron2.checkpoint.c2_model_loading.align_and_update_state_dicts`).

    Raises:
        CheckpointError: the first line of the message summarises the mismatch, the following ones
            list the missing, unexpected and misshaped names.
    """
    state = model.state_dict()
    expected = {name: tensor for name, tensor in state.items() if not is_derived(name)}
    given = {
        name_in_network(name, expected): tensor
        for name, tensor in weights.items()
        if not is_derived(name)
    }
    given = _align_names(_without_unused(given, expected), expected)
    given |= _identity_statistics(model, given)
    mismatch = describe_mismatch(expected, given)
    if mismatch:
        raise CheckpointError(mismatch)
    converted = {name: tensor.to(state[name].dtype) for name, tensor in given.items()}
    load_weights(model, {**state, **converted})


def is_derived(name: str) -> bool:
    """Return whether the config determines this state dict entry, or inference does not read it."""
    return (
        name in DERIVED_NAMES
        or name.endswith(DERIVED_SUFFIXES)
        or any(part in name for part in DERIVED_PARTS)
    )


def _without_unused(given: Weights, expected: Weights) -> Weights:
    """Leave out the modules that only training uses, unless the network has them."""
    return {
        name: tensor
        for name, tensor in given.items()
        if name in expected or not any(f"{name}.".startswith(f"{m}.") for m in UNUSED_MODULES)
    }


def _align_names(given: Weights, expected: Weights) -> Weights:
    """Rename weights that match the end of exactly one name of the network."""
    unmatched = {name for name in given if name not in expected}
    sources = {name: _source(name, unmatched) for name in expected if name not in given}
    uses = Counter(sources.values())
    names = {source: name for name, source in sources.items() if source and uses[source] == 1}
    return {names.get(name, name): tensor for name, tensor in given.items()}


def _source(name: str, unmatched: set[str]) -> str | None:
    """The longest of the unmatched names with which the network's name ends."""
    return next((ending for ending in _endings(name) if ending in unmatched), None)


def _endings(name: str) -> Iterator[str]:
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _identity_statistics(model: nn.Module, given: Weights) -> Weights:
    """Statistics of frozen norms without any: Caffe2 folds them into scale and shift."""
    statistics: Weights = {}
    for path, module in model.named_modules():
        if isinstance(module, FrozenBatchNorm2d) and f"{path}.weight" in given:
            statistics[f"{path}.running_mean"] = torch.zeros_like(module.running_mean)
            statistics[f"{path}.running_var"] = torch.ones_like(module.running_var)
    return {name: tensor for name, tensor in statistics.items() if name not in given}
