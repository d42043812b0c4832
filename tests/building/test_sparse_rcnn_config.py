"""Configs and checkpoints of Sparse R-CNN."""

from typing import Any

import pytest
import torch

from d2serve.building.checkpoint_loading import build_from_checkpoint
from d2serve.building.config import load_config, parse_config
from d2serve.building.yaml_config import merge, read_yaml_config
from d2serve.errors import CheckpointError, ConfigError
from d2serve.model.config import ModelConfig
from d2serve.model.heads_config import PoolerConfig
from d2serve.model.meta_arch import build_network
from d2serve.model.serialization import decode_config, encode_config
from d2serve.model.sparse_rcnn_config import SparseRCNNConfig
from tests.goldens.cases import CONFIGS

TINY = CONFIGS / "sparse_rcnn.yaml"
# The keys that the project's own configs set, beside those of training.
PUBLISHED = {
    "MODEL": {
        "META_ARCHITECTURE": "SparseRCNN",
        "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
        "RESNETS": {"OUT_FEATURES": ["res2", "res3", "res4", "res5"]},
        "FPN": {"IN_FEATURES": ["res2", "res3", "res4", "res5"]},
        "ROI_HEADS": {"IN_FEATURES": ["p2", "p3", "p4", "p5"]},
        "ROI_BOX_HEAD": {"POOLER_RESOLUTION": 7, "POOLER_SAMPLING_RATIO": 2},
        "SparseRCNN": {"NUM_PROPOSALS": 100},
    },
    "VERSION": 2,
}


def changed(**section: Any) -> ModelConfig:
    changes = {"MODEL": {"SparseRCNN": section}}
    return parse_config(merge(read_yaml_config(TINY), changes))


def test_the_defaults_are_those_of_the_project() -> None:
    assert parse_config(PUBLISHED).family == SparseRCNNConfig(
        in_features=("p2", "p3", "p4", "p5"),
        pooler=PoolerConfig(7, sampling_ratio=2, aligned=True),
        num_classes=80,
        num_proposals=100,
        stages=6,
        dim=256,
        heads=8,
        ffn_dim=2048,
        dynamic_dim=64,
        class_layers=1,
        box_layers=3,
        gelu=False,
        sigmoid_scores=True,
    )


def test_keys_of_training_change_nothing() -> None:
    training = {"DEEP_SUPERVISION": False, "DROPOUT": 0.1, "ALPHA": 0.5, "NO_OBJECT_WEIGHT": 0.2}
    assert changed(**training) == load_config(TINY)


def test_a_model_file_keeps_the_config() -> None:
    config = load_config(TINY)
    assert decode_config(encode_config(config)) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SparseRCNN": {"NUM_DYNAMIC": 3}}, r"NUM_DYNAMIC: 3 \(supported: only 2\)"),
        ({"SparseRCNN": {"ACTIVATION": "glu"}}, r"ACTIVATION: 'glu' \(supported: 'relu' or 'gelu'"),
        ({"SparseRCNN": {"HIDDEN_DIM": 64}}, r"HIDDEN_DIM: 64 \(must be 32, as MODEL\.FPN"),
        ({"SparseRCNN": {"NHEADS": 5}}, r"HIDDEN_DIM: 32 \(must be a multiple of .*NHEADS, 5\)"),
        ({"SparseRCNN": {"PROPOSALS": 5}}, r"SparseRCNN\.PROPOSALS: 5 \(not a key of Detectron2's"),
        (
            {
                "BACKBONE": {"NAME": "build_resnet_backbone"},
                "ROI_HEADS": {"IN_FEATURES": ["res5"]},
            },
            r"BACKBONE\.NAME: 'build_resnet_backbone' \(must be a backbone with FPN",
        ),
    ],
)
def test_other_networks_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(merge(read_yaml_config(TINY), {"MODEL": changes}))


def test_weights_that_only_training_uses_are_left_out() -> None:
    config = load_config(TINY)
    given = build_network(config).state_dict()
    unused = {"criterion.empty_weight": torch.ones(6)}
    network = build_from_checkpoint(config, {**given, **unused}, torch.device("cpu"))
    name = "head.head_series.2.inst_interact.dynamic_layer.weight"
    assert torch.equal(network.state_dict()[name], given[name])


@pytest.mark.parametrize(
    ("use_focal", "counts"), [(True, "7 class scores, the config 5"), (False, "8 .*, the config 6")]
)
def test_another_number_of_classes_is_named(use_focal: bool, counts: str) -> None:
    """Without USE_FOCAL, one of the scores is that of no object."""
    weights = build_network(changed(NUM_CLASSES=7, USE_FOCAL=use_focal)).state_dict()
    with pytest.raises(CheckpointError, match=rf"has {counts} \(MODEL\.SparseRCNN"):
        build_from_checkpoint(changed(USE_FOCAL=use_focal), weights, torch.device("cpu"))
