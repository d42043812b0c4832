"""Configs and checkpoints of Mask DINO."""

from typing import Any

import pytest
import torch

from d2serve.building.checkpoint_loading import load_from_checkpoint
from d2serve.building.class_names import choose_class_names
from d2serve.building.config import parse_config, read_config
from d2serve.building.yaml_config import merge
from d2serve.errors import CheckpointError, ConfigError
from d2serve.model.mask_dino_config import MaskDINOConfig
from d2serve.model.meta_arch import build_network
from d2serve.model.serialization import decode_config, encode_config
from tests.building.test_unknown_keys import nested
from tests.goldens.cases import CONFIGS, GoldenModel

DINO, HEAD = "MODEL.MaskDINO", "MODEL.SEM_SEG_HEAD"
NAMES = ("mask_dino_instance", "mask_dino_panoptic", "mask_dino_semantic")


def explicit(name: str, **changes: Any) -> dict[str, Any]:
    return merge(read_config(CONFIGS / f"{name}.yaml"), nested(changes))


def read(name: str, **changes: Any) -> MaskDINOConfig:
    family = parse_config(explicit(name, **changes)).family
    assert isinstance(family, MaskDINOConfig)
    return family


def test_values_that_change_inference() -> None:
    instance, panoptic, semantic = map(read, NAMES)
    assert [each.pixel_decoder.levels for each in (instance, panoptic, semantic)] == [4, 6, 3]
    assert [each.pixel_decoder.fpn_levels for each in (instance, panoptic, semantic)] == [1, 1, 2]
    assert instance.pixel_decoder.finest_first
    assert not panoptic.pixel_decoder.finest_first
    assert [each.inference.temperature for each in (instance, panoptic, semantic)] == [
        0.06,
        0.06,
        0.0,
    ]
    assert semantic.inference.has_no_object
    assert not panoptic.inference.has_no_object
    assert panoptic.inference.things == tuple(range(11, 19))
    assert instance.inference.rate_masks
    changed = read(
        "mask_dino_instance",
        **{
            f"{DINO}.TEST.TEST_FOUCUS_ON_BOX": True,
            f"{DINO}.TEST.PANO_TRANSFORM_EVAL": False,
            f"{DINO}.SEMANTIC_CE_LOSS": True,  # of semantic networks only
        },
    )
    assert (changed.inference.rate_masks, changed.inference.temperature) == (False, 0.0)
    assert not changed.inference.has_no_object


def test_keys_of_training_and_keys_that_no_class_reads_have_no_effect() -> None:
    keys = {
        "Default_loading": False,
        "INPUT.DATASET_MAPPER_NAME": "coco_instance_lsj",
        "TEST.EVAL_FLAG": 1,
        f"{DINO}.COST_GIOU_WEIGHT": 2.0,
        f"{DINO}.DN": "seg",
        f"{DINO}.ENC_LAYERS": 3,
        f"{DINO}.PRE_NORM": True,
        f"{HEAD}.NUM_FEATURE_LEVELS": 4,
    }
    assert read("mask_dino_instance", **keys) == read("mask_dino_instance")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (NAMES[0], {f"{DINO}.HIDDEN_DIM": 128}, "HIDDEN_DIM: 128 .supported: only 256"),
        (NAMES[0], {f"{DINO}.INITIALIZE_BOX_TYPE": "mask"}, "'no' or 'bitmask' or 'mask2box'"),
        (NAMES[0], {f"{DINO}.TWO_STAGE": False}, "INITIALIZE_BOX_TYPE: 'mask2box' .requires"),
        (NAMES[0], {f"{DINO}.INITIAL_PRED": False}, "INITIALIZE_BOX_TYPE: 'mask2box' .requires"),
        (NAMES[0], {f"{DINO}.DEC_LAYERS": 0}, "DEC_LAYERS: 0 .supported: an integer of at least 1"),
        (NAMES[0], {f"{HEAD}.TOTAL_NUM_FEATURE_LEVELS": 2}, "LEVELS: 2 .must be at least 3, the"),
        (
            NAMES[2],
            {f"{HEAD}.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": ["res5"]},
            "LEVELS: 3 .must be 1, the number of",
        ),
        (NAMES[0], {f"{HEAD}.FEATURE_ORDER": "up"}, "FEATURE_ORDER: 'up' .* 'high2low' or 'low2"),
        (NAMES[2], {f"{HEAD}.CONVS_DIM": 48}, "CONVS_DIM: 48 .must be a multiple of 32 and of"),
        (NAMES[0], {f"{HEAD}.NAME": "SemSegFPNHead"}, "NAME: .*must be 'MaskDINOHead'"),
        (NAMES[0], {"TEST.DETECTIONS_PER_IMAGE": 229}, "PER_IMAGE: 229 .must be 0 to 228"),
        (NAMES[0], {f"{DINO}.TEST.INSTANCE_ON": False}, "INSTANCE_ON, .*PANOPTIC_ON must be True"),
        (NAMES[1], {f"{DINO}.TEST.PANO_TEMPERATURE": 0}, "PANO_TEMPERATURE: 0 .must be above 0"),
        (
            NAMES[1],
            {f"{DINO}.SEMANTIC_CE_LOSS": True},
            "CE_LOSS: True .requires .*SEMANTIC_ON alone",
        ),
        (NAMES[1], {"DATASETS.TRAIN": ["own"]}, r"unknown for DATASETS.TRAIN \['own'\] with 19 cl"),
        (NAMES[1], {f"{DINO}.TEST.THINGS": [19]}, "MaskDINO.TEST.THINGS: .*must be below 19"),
        (NAMES[0], {f"{DINO}.TEST.OTHER": 1}, "TEST.OTHER"),
        (NAMES[0], {"MODEL.BACKBONE.NAME": "D2FocalNet"}, "FocalNet of Mask DINO .*part neither"),
    ],
)
def test_other_values_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(name, **changes)


@pytest.mark.parametrize("name", NAMES)
def test_the_config_survives_the_model_file(name: str) -> None:
    config = parse_config(explicit(name))
    assert decode_config(encode_config(config)) == config


def test_checkpoints_have_shared_layers_several_times_and_those_of_training() -> None:
    model = GoldenModel("x", CONFIGS / "mask_dino_instance.yaml", None, ()).build()
    weights, predictor = model.state_dict(), "sem_seg_head.predictor"
    copies = {
        name.replace(f"{predictor}.{own}.", f"{predictor}.{other}."): tensor
        for own, others in {
            "decoder_norm": ("decoder.norm",),
            "_bbox_embed": ("bbox_embed.0", "bbox_embed.1", "decoder.bbox_embed.1"),
        }.items()
        for other in others
        for name, tensor in weights.items()
        if name.startswith(f"{predictor}.{own}.")
    }
    assert len(copies) == 2 + 3 * 6
    trained = {
        f"{predictor}.label_enc.weight": torch.zeros(19, 256),
        "criterion.empty_weight": torch.ones(20),
    }
    other = build_network(model.config)
    load_from_checkpoint(other, {**weights, **copies, **trained})
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_another_number_of_classes_is_named() -> None:
    weights = GoldenModel("x", CONFIGS / "mask_dino_instance.yaml", None, ()).build().state_dict()
    other = build_network(
        parse_config(explicit("mask_dino_instance", **{f"{HEAD}.NUM_CLASSES": 7}))
    )
    with pytest.raises(CheckpointError, match="has 19 class scores, the config 7"):
        load_from_checkpoint(other, weights)


def test_things_and_stuff_have_the_names_of_one_list() -> None:
    given = tuple(f"kind {index}" for index in range(19))
    named = choose_class_names(given, explicit("mask_dino_panoptic"), 19, 19).names
    assert named.things == named.stuff == given
