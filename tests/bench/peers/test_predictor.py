"""The network that peers run where detectron2 is missing is as good as its own predictor."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.peers import predictor
from bench.peers.models import shapes


def test_an_answer_is_lists_with_a_mask_of_each_pixel() -> None:
    masks = np.zeros((1, 2, 3), dtype=np.bool_)
    masks[0, 1, 2] = True
    boxes, scores = np.array([[0, 0.5, 2, 1]], np.float32), np.array([0.5], np.float32)
    found = predictor.Prediction(boxes, scores, np.array([7]), masks)
    assert json.loads(found.as_json()) == {
        "boxes": [[0, 0.5, 2, 1]],
        "scores": [0.5],
        "classes": [7],
        "masks": [[[0, 0, 0], [0, 0, 1]]],
    }


@pytest.mark.upstream
def test_the_plain_network_answers_as_the_package(tmp_path: Path) -> None:
    pytest.importorskip("detectron2", reason="compares with an installed detectron2")
    model = shapes(tmp_path)
    shutil.copyfile(model.config, tmp_path / predictor.CONFIG_FILE)
    shutil.copyfile(model.checkpoint, tmp_path / predictor.CHECKPOINT_FILE)
    picture = np.array(Image.open(model.pictures[0]).convert("RGB"))
    package, plain = (load(tmp_path)(picture) for load in (predictor._upstream, predictor._plain))
    assert len(plain.scores) > 5
    np.testing.assert_array_equal(plain.classes, package.classes)
    np.testing.assert_allclose(plain.scores, package.scores, rtol=0, atol=1e-3)
    np.testing.assert_allclose(plain.boxes_xyxy, package.boxes_xyxy, rtol=0, atol=0.05)
    assert (plain.masks != package.masks).mean() < 1e-4
