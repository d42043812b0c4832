"""The backbone as CUDA graphs, recorded on a CPU by a recorder that only counts."""

import logging
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from d2serve.detector import cuda_graphs as graphs
from d2serve.detector.cuda_graphs import Features, GraphedBackbone, Replay
from d2serve.detector.native import NativeDetector
from d2serve.model.fpn import Backbone
from d2serve.settings import Settings
from tests.goldens.cases import TRAINED

CPU = torch.device("cpu")


class Doubling(nn.Module):
    """A backbone that tells how often it ran."""

    size_divisibility, square_size = 32, 0

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, batch: Tensor) -> Features:
        self.runs += 1
        return {"p2": 2 * batch}


class Recorder:
    """Records as a GPU would: what comes later goes through the same memory."""

    def __init__(self) -> None:
        self.shapes: list[torch.Size] = []

    def __call__(self, backbone: nn.Module, batch: Tensor) -> Replay:
        self.shapes.append(batch.shape)
        features: Features = backbone(batch)

        def replay(batch: Tensor) -> Features:
            features["p2"].copy_(2 * batch)
            return features

        return replay


def test_each_shape_is_recorded_once_and_replayed_with_its_own_pictures() -> None:
    backbone, record = Doubling(), Recorder()
    graphed = GraphedBackbone(cast(Backbone, backbone), record)
    shapes = [(1, 3, 32, 64), (2, 3, 32, 64), (1, 3, 64, 32)]
    batches = [torch.rand(shape) for shape in shapes for _ in range(3)]
    for batch in batches:
        torch.testing.assert_close(graphed(batch)["p2"], 2 * batch)
    assert record.shapes == [torch.Size(shape) for shape in shapes]
    assert backbone.runs == len(shapes)


def test_shapes_beyond_the_most_run_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 1)
    backbone, record = Doubling(), Recorder()
    graphed = GraphedBackbone(cast(Backbone, backbone), record)
    for width in (32, 64, 64, 32):
        batch = torch.rand(1, 3, 32, width)
        torch.testing.assert_close(graphed(batch)["p2"], 2 * batch)
    assert record.shapes == [torch.Size((1, 3, 32, 32))]
    assert backbone.runs == 3


def test_it_pads_as_the_backbone_does() -> None:
    backbone = TRAINED.build().backbone
    graphed = GraphedBackbone(backbone, Recorder())
    assert graphed.size_divisibility == backbone.size_divisibility
    assert graphed.square_size == backbone.square_size


def test_on_a_cpu_the_backbone_stays_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        detector = NativeDetector(TRAINED.build(), CPU, Settings(cuda_graphs=True))
    assert not isinstance(detector.model.backbone, GraphedBackbone)
    assert "cuda_graphs: there are none on the cpu" in caplog.text
