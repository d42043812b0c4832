"""Configs and checkpoints of MaskFormer and Mask2Former."""

from typing import Any

import pytest
import torch

from d2serve.building.checkpoint_loading import load_from_checkpoint
from d2serve.building.class_names import choose_class_names
from d2serve.building.config import parse_config, read_config
from d2serve.building.yaml_config import merge
from d2serve.errors import CheckpointError, ConfigError
from d2serve.model.mask_former_config import MASKED_DECODER, STANDARD_DECODER, MaskFormerConfig
from d2serve.model.meta_arch import build_network
from d2serve.model.serialization import decode_config, encode_config
from tests.goldens.cases import CONFIGS, GoldenModel


def explicit(name: str, **changes: Any) -> dict[str, Any]:
    """The values of a golden config with changes by dotted name, `__` for dots."""
    config = read_config(CONFIGS / f"{name}.yaml")
    for key, value in changes.items():
        *sections, last = key.split("__")
        changed: dict[str, Any] = {last: value}
        for section in reversed(sections):
            changed = {section: changed}
        config = merge(config, changed)
    return config


def read(name: str, **changes: Any) -> MaskFormerConfig:
    family = parse_config(explicit(name, **changes)).family
    assert isinstance(family, MaskFormerConfig)
    return family


def test_a_config_of_mask_former_differs_in_decoder_and_segments() -> None:
    first, second = read("mask_former_panoptic"), read("mask2former_panoptic")
    assert (first.decoder.name, second.decoder.name) == (STANDARD_DECODER, MASKED_DECODER)
    assert first.decoder.transformer.layers == 1  # DEC_LAYERS
    assert second.decoder.transformer.layers == 4  # one less
    assert (first.size_divisibility, second.size_divisibility) == (1, 32)
    assert not first.inference.confident_pixels_only
    assert second.inference.confident_pixels_only
    assert (first.inference.instance, first.inference.semantic) == (False, True)


def test_things_come_from_the_dataset_or_the_config() -> None:
    assert read("mask2former_panoptic").inference.things == tuple(range(80))
    given = read("mask2former_panoptic", MODEL__MASK_FORMER__TEST__THINGS=[3, 5])
    assert given.inference.things == (3, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"DATASETS__TRAIN": ["own"]}, r"unknown for DATASETS.TRAIN \['own'\] with 133 classes"),
        ({"MODEL__MASK_FORMER__TEST__THINGS": [133]}, "TEST.THINGS: .*must be below 133"),
        ({"MODEL__MASK_FORMER__NHEADS": 3}, "HIDDEN_DIM: 32 .must be a multiple of 4 and of"),
        (
            {"MODEL__MASK_FORMER__TRANSFORMER_IN_FEATURE": "res5"},
            "must be 'multi_scale_pixel_decoder' for MultiScaleMaskedTransformerDecoder only",
        ),
        ({"MODEL__SEM_SEG_HEAD__CONVS_DIM": 16}, "CONVS_DIM: 16 .must be a multiple of 32"),
        ({"MODEL__SEM_SEG_HEAD__COMMON_STRIDE": 16}, "COMMON_STRIDE: 16 .must be at most 8"),
        ({"MODEL__SEM_SEG_HEAD__NAME": "SemSegFPNHead"}, "NAME: .*must be 'MaskFormerHead'"),
        ({"TEST__DETECTIONS_PER_IMAGE": 1597}, "DETECTIONS_PER_IMAGE: 1597 .must be 0 to 1596"),
        ({"MODEL__MASK_FORMER__TEST__OTHER": 1}, "TEST.OTHER"),
    ],
)
def test_conflicting_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read("mask2former_panoptic", **changes)


@pytest.mark.parametrize("name", ["mask2former_semantic", "mask_former_panoptic"])
def test_the_config_survives_the_model_file(name: str) -> None:
    config = parse_config(explicit(name))
    assert decode_config(encode_config(config)) == config


def test_checkpoints_of_earlier_versions_load() -> None:
    model = GoldenModel("x", CONFIGS / "mask2former_semantic.yaml", None, ()).build()
    weights = model.state_dict()
    earlier = {
        name.replace("query_feat", "static_query").replace(".pixel_decoder.", "."): tensor
        for name, tensor in weights.items()
    }
    assert len(earlier.keys() - weights.keys()) > 50
    other = build_network(model.config)
    load_from_checkpoint(other, {**earlier, "criterion.empty_weight": torch.ones(20)})
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_another_number_of_classes_is_named() -> None:
    weights = GoldenModel("x", CONFIGS / "mask2former_instance.yaml", None, ()).build().state_dict()
    other = build_network(parse_config(explicit("mask2former_panoptic")))
    with pytest.raises(CheckpointError, match="has 19 classes, the config 133"):
        load_from_checkpoint(other, weights)


def test_things_and_stuff_have_the_names_of_one_list() -> None:
    config = explicit("mask2former_panoptic")
    named = choose_class_names(None, config, 133, 133).names
    assert named.things == named.stuff
    assert (named.things[0], named.things[-1]) == ("person", "rug-merged")
    numbered = choose_class_names(None, {**config, "DATASETS": {}}, 133, 133).names
    assert numbered.stuff[0] == "class_0"
