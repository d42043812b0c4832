"""Class scores from cosine similarities."""

import pytest
import torch

from d2serve.building.checkpoint_loading import load_from_checkpoint
from d2serve.errors import CheckpointError
from d2serve.model.box_head import build_box_predictor
from d2serve.model.heads_config import LEARNED_SCALE, BoxPredictorConfig

SCALE = 7.0


def config(scale: float) -> BoxPredictorConfig:
    return BoxPredictorConfig(2, False, False, (10.0, 10.0, 5.0, 5.0), cosine_scale=scale)


def test_a_learned_scale_is_one_of_the_weights() -> None:
    weights = {
        "cls_score.weight": torch.randn(3, 4),
        "bbox_pred.weight": torch.randn(8, 4),
        "bbox_pred.bias": torch.randn(8),
    }
    fixed, learned = (build_box_predictor(4, config(scale)) for scale in (SCALE, LEARNED_SCALE))
    load_from_checkpoint(fixed, weights)
    load_from_checkpoint(learned, {**weights, "scale": torch.tensor([SCALE])})
    features = torch.randn(5, 4)
    assert torch.equal(fixed.predict_logits(features), learned.predict_logits(features))
    with pytest.raises(CheckpointError, match="missing: scale"):
        load_from_checkpoint(learned, weights)


def test_lengths_have_no_effect_and_zero_has_no_direction() -> None:
    predictor = build_box_predictor(4, config(SCALE))
    with torch.no_grad():
        predictor.cls_score.weight.copy_(torch.eye(3, 4) * torch.tensor([[1.0], [5.0], [0.2]]))
    features = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    logits = predictor.predict_logits(features)
    expected = torch.tensor([[0.6 * SCALE, 0.8 * SCALE, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=0)
