"""Configs of Detectron2's project DensePose."""

from typing import Any

import pytest

from d2serve.building.config import load_config, parse_config
from d2serve.building.yaml_config import merge, read_yaml_config
from d2serve.errors import UnsupportedConfigError
from d2serve.model.serialization import decode_config, encode_config
from tests.goldens.cases import CONFIGS

DECODER = CONFIGS / "densepose" / "decoder.yaml"
DEEP_LAB = CONFIGS / "densepose" / "deep_lab.yaml"
HEAD = "MODEL.ROI_DENSEPOSE_HEAD"


def changed(name: str, value: Any, config: Any = DECODER) -> dict[str, Any]:
    """The config with another value of a key."""
    override: Any = value
    for step in reversed(name.split(".")):
        override = {step: override}
    return merge(read_yaml_config(config), override)


@pytest.mark.parametrize("config", [DECODER, DEEP_LAB], ids=lambda path: path.stem)
def test_a_model_file_keeps_the_head(config: Any) -> None:
    read = load_config(config)
    assert read.densepose is not None
    assert decode_config(encode_config(read)) == read


def test_confidences_of_classes_need_their_predictor() -> None:
    head = load_config(DECODER).densepose
    assert head is not None
    assert head.confidence_floor == 0.01
    plain = parse_config(changed(f"{HEAD}.PREDICTOR_NAME", "DensePoseChartPredictor")).densepose
    assert plain is not None
    assert plain.confidence_floor is None


def test_a_model_without_densepose_is_a_standard_one() -> None:
    assert parse_config(changed("MODEL.DENSEPOSE_ON", False)).densepose is None
    assert parse_config(changed("MODEL.ROI_HEADS.NAME", "StandardROIHeads")).densepose is None


def test_keys_of_training_and_evaluation_are_ignored() -> None:
    further = {
        "BOOTSTRAP_DATASETS": [{"DATASET": "chimpnsee", "RATIO": 1.0}],
        "BOOTSTRAP_MODEL": {"WEIGHTS": "model.pkl"},
        "DENSEPOSE_EVALUATION": {"TYPE": "iou"},
        "INPUT": {"ROTATION_ANGLES": [0]},
        "MODEL": {
            "HRNET": {"STEM_INPLANES": 64},
            "ROI_DENSEPOSE_HEAD": {
                "CSE": {"EMBED_SIZE": 16, "EMBEDDERS": {}},
                "INDEX_WEIGHTS": 5.0,
                "HEATMAP_SIZE": 112,
            },
        },
    }
    assert parse_config(merge(read_yaml_config(DECODER), further)) == load_config(DECODER)


@pytest.mark.parametrize(
    ("name", "value", "config", "message"),
    [
        (f"{HEAD}.NAME", "", DECODER, f"{HEAD}.NAME"),
        (f"{HEAD}.NUM_PATCHES", 256, DECODER, f"{HEAD}.NUM_PATCHES: 256"),
        (f"{HEAD}.UP_SCALE", 1.5, DECODER, f"{HEAD}.UP_SCALE: 1.5"),
        (f"{HEAD}.NUM_PATCH", 24, DECODER, f"{HEAD}.NUM_PATCH"),
        (f"{HEAD}.DECODER_NUM_CLASSES", 32, DECODER, "must be MODEL.FPN.OUT_CHANNELS, here 16"),
        (f"{HEAD}.DECODER_COMMON_STRIDE", 8, DECODER, "must be a power of 2 of at most 4"),
        (f"{HEAD}.DECODER_NORM", "GN", DECODER, "DECODER_CONV_DIMS: 16 (must be a multiple of 32"),
        (f"{HEAD}.NUM_STACKED_CONVS", 0, DEEP_LAB, "must be at least 1 for DensePoseDeepLabHead"),
        (f"{HEAD}.DEEPLAB.NONLOCAL_ON", 1, DEEP_LAB, "NONLOCAL_ON: 1"),
        ("MODEL.FPN.OUT_CHANNELS", 48, DEEP_LAB, "must be a multiple of 32"),
        (f"{HEAD}.PREDICTOR_NAME", "DensePoseEmbeddingPredictor", DECODER, "embeddings (CSE)"),
        ("MODEL.BACKBONE.NAME", "build_hrfpn_backbone", DECODER, "HRNet of DensePose"),
    ],
)
def test_other_values_are_refused(name: str, value: Any, config: Any, message: str) -> None:
    with pytest.raises(UnsupportedConfigError) as caught:
        parse_config(changed(name, value, config))
    assert message in str(caught.value)
