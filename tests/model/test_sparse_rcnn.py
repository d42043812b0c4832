"""Detections of Sparse R-CNN."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from d2serve.detections import Detections, RGBImage
from d2serve.detector.native import NativeDetector
from d2serve.model.meta_arch import build_network
from d2serve.model.network import Network
from d2serve.model.sparse_rcnn import SparseRCNN
from d2serve.model.sparse_rcnn_config import SparseRCNNConfig
from d2serve.model.structures import apply_deltas
from d2serve.settings import Settings
from tests.goldens.cases import TINY

[GOLDEN] = [golden for golden in TINY if golden.name == "sparse_rcnn"]
PROPOSALS, CLASSES = 20, 5
# Of one padded size.
SIZES_HW = [(120, 150), (117, 160), (128, 130)]


def model(**changes: object) -> Network:
    """The tiny network, whose images are not resized."""
    built = GOLDEN.build()
    config, family = built.config, built.config.family
    assert isinstance(family, SparseRCNNConfig)
    changed = build_network(
        replace(
            config,
            input=replace(config.input, min_size=0),
            family=replace(family, **changes),  # type: ignore[arg-type]
        )
    )
    changed.load_state_dict(built.state_dict())
    return changed.eval().requires_grad_(False)


def detect(network: Network, images: list[RGBImage]) -> list[Detections]:
    results = NativeDetector(network, torch.device("cpu"), Settings()).detect(images)
    assert [result.batch for result in results] == [len(images)] * len(images)
    outputs = [result.output for result in results]
    assert all(isinstance(output, Detections) for output in outputs)
    return outputs  # type: ignore[return-value]


def test_proposals_are_relative_to_each_image_of_a_batch() -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES_HW]
    for image, together in zip(images, detect(model(), images), strict=True):
        [alone] = detect(model(), [image])
        assert len(together) == PROPOSALS
        np.testing.assert_allclose(together.boxes_xyxy, alone.boxes_xyxy, atol=0.01)
        np.testing.assert_allclose(together.scores, alone.scores, atol=1e-5)
        np.testing.assert_array_equal(together.classes, alone.classes)


@pytest.mark.parametrize("sigmoid_scores", [True, False])
def test_the_best_pairs_of_a_proposal_and_a_class_are_detected(sigmoid_scores: bool) -> None:
    # Without sigmoids the last class is "no object".
    classes = CLASSES if sigmoid_scores else CLASSES - 1
    network = model(num_classes=classes, sigmoid_scores=sigmoid_scores)
    assert isinstance(network, SparseRCNN)
    torch.manual_seed(0)
    logits = torch.randn(1, PROPOSALS, CLASSES)
    logits[0, 3] += 5.0  # more than one class of this proposal is good
    boxes = torch.arange(PROPOSALS * 4.0).view(1, PROPOSALS, 4)
    found = network._select(logits, boxes)
    scores = logits[0].sigmoid() if sigmoid_scores else logits[0].softmax(dim=1)[:, :-1]
    if not sigmoid_scores:
        scores = scores.where(scores == scores.max(dim=1, keepdim=True).values, 0.0)
    best = scores.flatten().sort(descending=True).indices[:PROPOSALS]
    rows = best // classes
    assert found.counts == [PROPOSALS]
    assert torch.equal(found.classes, best % classes)
    assert torch.equal(found.boxes, boxes[0, rows])
    torch.testing.assert_close(found.scores, scores.flatten()[best])
    assert (rows == 3).sum() == (CLASSES if sigmoid_scores else 1)


def test_a_stage_may_enlarge_a_box_more_than_other_networks() -> None:
    box, deltas = torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.tensor([[0.0, 0.0, 8.0, 20.0]])
    limit = math.log(100_000.0 / 16)
    [[[x1, y1, x2, y2]]] = apply_deltas(deltas, box, (1.0,) * 4, limit).tolist()
    assert x2 - x1 == pytest.approx(16 * math.exp(8.0), rel=1e-5)
    assert y2 - y1 == pytest.approx(100_000.0, rel=1e-5)
