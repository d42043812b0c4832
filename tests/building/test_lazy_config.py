"""Python configs become YAML, where the upstream package is installed."""

from pathlib import Path

import pytest
import yaml

from d2serve.building.lazy_config import save_lazy_config
from d2serve.errors import ConfigError
from tests.detector.upstream_models import upstream_marks

pytestmark = upstream_marks

MODEL = """
from functools import partial
from torch import nn
import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper
from omegaconf import OmegaConf

model = L(nn.Sequential)(norm=partial(nn.LayerNorm, eps=1e-6), width=7, twice="${.width}")
dataloader = OmegaConf.create()
dataloader.train = {"mapper": {"image_format": "RGB"}}
"""
TEST = """
dataloader.test = {"mapper": L(DatasetMapper)(
    is_train=False, image_format="${...train.mapper.image_format}", augmentations=[%s]
)}
"""


def save(tmp_path: Path, text: str) -> dict[str, dict[str, object]]:
    source, target = tmp_path / "config.py", tmp_path / "lazy_config.yaml"
    source.write_text(text)
    save_lazy_config(source, target)
    saved: dict[str, dict[str, object]] = yaml.unsafe_load(target.read_text())
    return saved


def resized_by(augmentation: str) -> str:
    return MODEL + TEST % augmentation


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            resized_by("L(T.ResizeShortestEdge)(short_edge_length=640, max_size=900)"),
            {"channel_order": "RGB", "min_size": 640, "max_size": 900},
            id="what the test loader does",
        ),
        pytest.param(
            resized_by("L(T.ResizeShortestEdge)(short_edge_length=[64, 64])"),
            {"channel_order": "RGB", "min_size": 64, "max_size": 2**31 - 1},
            id="a pair, without a limit",
        ),
        pytest.param(
            resized_by(""),
            {"channel_order": "RGB", "min_size": 0, "max_size": 2**31 - 1},
            id="no resizing",
        ),
        pytest.param(
            MODEL,
            {"channel_order": "BGR", "min_size": 800, "max_size": 1333},
            id="no test loader",
        ),
        pytest.param(
            MODEL + "model.input_format = 'RGB'\ndel dataloader",
            {"channel_order": "RGB", "min_size": 800, "max_size": 1333},
            id="no loader, the model knows its order",
        ),
    ],
)
def test_images_are_resized_as_the_config_tests(
    tmp_path: Path, text: str, expected: dict[str, object]
) -> None:
    assert save(tmp_path, text)["input"] == expected


def test_only_the_model_is_kept(tmp_path: Path) -> None:
    saved = save(tmp_path, MODEL + "optimizer = dict(of=lambda: 1)\n")
    assert saved.keys() == {"model", "input", "datasets"}
    assert saved["datasets"] == {"TEST": [], "TRAIN": []}
    assert saved["model"]["_target_"] == "torch.nn.Sequential"
    assert saved["model"]["twice"] == "${.width}"
    assert saved["model"]["norm"].keywords == {"eps": 1e-6}  # type: ignore[attr-defined]


def test_training_arguments_are_removed(tmp_path: Path) -> None:
    saved = save(
        tmp_path,
        MODEL
        + "from detectron2.layers import NaiveSyncBatchNorm\n"
        + "model.norm = lambda c: NaiveSyncBatchNorm(c, stats_mode='N')\n"
        + "model.heads = [L(nn.Linear)(use_fed_loss=True, get_fed_loss_cls_weights=lambda: 1)]\n",
    )
    assert saved["model"]["norm"] == "BN"
    assert saved["model"]["heads"] == [{"_target_": "torch.nn.Linear"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("raise ValueError('broken')", "ValueError: broken", id="raises"),
        pytest.param("model = (", "SyntaxError", id="no Python"),
        pytest.param("train = dict(a=1)", "has no `model`", id="no model"),
        pytest.param(
            resized_by("L(T.Resize)(shape=64)"), "Resize .supported: only Res", id="other resizing"
        ),
        pytest.param(
            resized_by("L(T.ResizeShortestEdge)(short_edge_length=64), L(T.RandomFlip)()"),
            "ResizeShortestEdge, RandomFlip",
            id="more than resizing",
        ),
        pytest.param(
            resized_by("L(T.ResizeShortestEdge)(short_edge_length=[64, 96])"),
            r"drawn from \[64, 96\]",
            id="sizes by chance",
        ),
        pytest.param(MODEL + "model.norm = lambda c: c", "objects that YAML cannot", id="a lambda"),
        pytest.param(MODEL + "model.norm = lambda: 1", "cannot be made", id="no norm"),
        pytest.param(
            MODEL + "model.norm = lambda c: nn.BatchNorm2d(c, eps=1e-3)",
            "objects that YAML cannot",
            id="another batch norm",
        ),
        pytest.param(
            MODEL + "model.act = lambda c: nn.BatchNorm2d(c)",
            "objects that YAML cannot",
            id="a batch norm that is no norm",
        ),
    ],
)
def test_unsupported_configs_are_rejected(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        save(tmp_path, text)
