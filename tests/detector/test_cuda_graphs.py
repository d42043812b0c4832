"""CUDA graphs of the backbone, with a stand-in for recordings that runs on a CPU."""

import logging
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from d2serve.detector import cuda_graphs
from d2serve.detector.cuda_graphs import Features, GraphedBackbone, Replay
from d2serve.detector.native import NativeDetector
from d2serve.model.fpn import Backbone
from d2serve.settings import Settings
from tests.goldens.cases import TRAINED

CPU = torch.device("cpu")


class Doubling(nn.Module):
    """A backbone that counts its runs."""

    size_divisibility, square_size = 32, 0

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, batch: Tensor) -> Features:
        self.runs += 1
        return {"p2": 2 * batch}


class Recorder:
    """Records like a GPU: replays write to the same memory."""

    def __init__(self) -> None:
        self.shapes: list[torch.Size] = []

    def __call__(self, backbone: nn.Module, batch: Tensor) -> Replay:
        self.shapes.append(batch.shape)
        features: Features = backbone(batch)

        def replay(batch: Tensor) -> Features:
            features["p2"].copy_(2 * batch)
            return features

        return replay


def test_each_shape_is_recorded_once_and_replayed() -> None:
    backbone, record = Doubling(), Recorder()
    graphed = GraphedBackbone(cast(Backbone, backbone), record)
    shapes = [(1, 3, 32, 64), (2, 3, 32, 64), (1, 3, 64, 32)]
    batches = [torch.rand(shape) for shape in shapes for _ in range(3)]
    for batch in batches:
        torch.testing.assert_close(graphed(batch)["p2"], 2 * batch)
    assert record.shapes == [torch.Size(shape) for shape in shapes]
    assert backbone.runs == len(shapes)


def test_shapes_beyond_the_limit_run_without_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 1)
    backbone, record = Doubling(), Recorder()
    graphed = GraphedBackbone(cast(Backbone, backbone), record)
    for width in (32, 64, 64, 32):
        batch = torch.rand(1, 3, 32, width)
        torch.testing.assert_close(graphed(batch)["p2"], 2 * batch)
    assert record.shapes == [torch.Size((1, 3, 32, 32))]
    assert backbone.runs == 3


def test_padding_is_that_of_the_backbone() -> None:
    backbone = TRAINED.build().backbone
    graphed = GraphedBackbone(backbone, Recorder())
    assert graphed.size_divisibility == backbone.size_divisibility
    assert graphed.square_size == backbone.square_size


def test_cpu_keeps_the_backbone_and_logs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        detector = NativeDetector(TRAINED.build(), CPU, Settings(cuda_graphs=True))
    assert not isinstance(detector.model.backbone, GraphedBackbone)
    assert "the setting cuda_graphs has no effect: the device is the cpu" in caplog.text
