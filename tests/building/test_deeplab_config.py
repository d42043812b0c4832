"""The ResNet of Detectron2's project DeepLab in keyed configs."""

from typing import Any

import pytest

from d2serve.building.config import parse_config
from d2serve.building.yaml_config import merge, read_yaml_config
from d2serve.errors import ConfigError
from d2serve.model.backbone_config import BackboneConfig, ResNetConfig
from d2serve.model.config import ModelConfig
from d2serve.model.mask_former_config import MaskFormerConfig
from d2serve.model.serialization import decode_config, encode_config
from tests.goldens.cases import CONFIGS

NAME = {"BACKBONE": {"NAME": "build_resnet_deeplab_backbone"}}
R101C = {"DEPTH": 101, "STEM_TYPE": "deeplab", "RES5_MULTI_GRID": [1, 2, 4]}


def parse(base: str, **resnet: Any) -> ModelConfig:
    changes = {"MODEL": {**NAME, "RESNETS": resnet}}
    return parse_config(merge(read_yaml_config(CONFIGS / f"{base}.yaml"), changes))


def resnet_of(config: ModelConfig) -> ResNetConfig:
    assert isinstance(config.backbone, BackboneConfig)
    assert isinstance(config.backbone.bottom_up, ResNetConfig)
    return config.backbone.bottom_up


def test_mask_former_on_r101c() -> None:
    config = parse("mask_former_panoptic", **R101C)
    assert isinstance(config.family, MaskFormerConfig)
    resnet = resnet_of(config)
    assert (resnet.deep_stem, resnet.res5_multi_grid) == (True, (1, 2, 4))
    assert resnet.levels == (2, 3, 4, 5)
    assert decode_config(encode_config(config)) == config


def test_keys_of_the_backbone_have_no_effect_on_another_one() -> None:
    base = read_yaml_config(CONFIGS / "mask_former_panoptic.yaml")
    keys = {"MODEL": {"RESNETS": {"STEM_TYPE": "deeplab", "RES5_MULTI_GRID": [1, 2, 4]}}}
    assert parse_config(merge(base, keys)) == parse_config(base)


@pytest.mark.parametrize(
    ("res4", "res5", "levels"),
    [(1, 1, (2, 3, 4, 5)), (1, 2, (2, 3, 4, 4)), (1, 4, (2, 3, 4, 4)), (2, 4, (2, 3, 3, 3))],
)
def test_a_dilated_stage_keeps_the_stride(res4: int, res5: int, levels: tuple[int, ...]) -> None:
    features = ["res2", "res3", "res4", "res5"]
    config = parse("mask_rcnn_dc5", RES4_DILATION=res4, RES5_DILATION=res5, OUT_FEATURES=features)
    assert resnet_of(config).levels == levels


@pytest.mark.parametrize(
    ("resnet", "message"),
    [
        ({"RES4_DILATION": 2, "RES5_DILATION": 2}, r"RES5_DILATION: 2 \(must be 4 with .* 2\)"),
        ({"RES5_MULTI_GRID": [1, 2]}, r"RES5_MULTI_GRID: \[1, 2\] \(supported: a list of 3"),
        ({"STEM_TYPE": "other"}, r"STEM_TYPE: 'other' \(supported: 'deeplab' or 'basic'\)"),
        ({"DEPTH": 18, "RES2_OUT_CHANNELS": 64}, r"DEPTH: 18 \(must be 50 or more"),
        ({"STEM_OUT_CHANNELS": 7}, r"STEM_OUT_CHANNELS: 7 \(must be even\)"),
    ],
)
def test_inconsistent_values_are_refused(resnet: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse("mask_former_panoptic", **resnet)


def test_a_model_file_of_an_earlier_version_has_no_multi_grid() -> None:
    config = parse_config(read_yaml_config(CONFIGS / "mask_rcnn_dc5.yaml"))
    content = encode_config(config)
    for name in ("deep_stem", "res4_dilation", "res5_multi_grid"):
        del content["backbone"]["bottom_up"][name]
    assert decode_config(content) == config
