"""Limits of models of the upstream package."""

from types import SimpleNamespace

import pytest
from torch import nn

from d2serve.detector.detectron2.detector import Limits, limits_of
from d2serve.errors import ConfigError


class Predictor(nn.Module):
    def __init__(self, score: float, count: int) -> None:
        super().__init__()
        self.test_score_thresh = score
        self.test_topk_per_image = count


def head_of(classes: int) -> SimpleNamespace:
    return SimpleNamespace(predictor=nn.Conv2d(1, classes, 1))


@pytest.mark.parametrize(
    ("model", "limits"),
    [
        pytest.param(
            SimpleNamespace(
                proposal_generator=None,
                roi_heads=SimpleNamespace(num_classes=80, box_predictor=Predictor(0.05, 100)),
            ),
            Limits(80, 0.05, 100),
            id="R-CNN",
        ),
        pytest.param(
            SimpleNamespace(
                roi_heads=SimpleNamespace(
                    num_classes=3,
                    box_predictor=nn.ModuleList([Predictor(0.9, 1), Predictor(0.2, 30)]),
                ),
            ),
            Limits(3, 0.2, 30),
            id="cascade",
        ),
        pytest.param(
            SimpleNamespace(
                roi_heads=SimpleNamespace(num_classes=80, box_predictor=Predictor(0.05, 100)),
                sem_seg_head=head_of(54),
            ),
            Limits(80, 0.05, 100, 54),
            id="panoptic FPN",
        ),
        pytest.param(
            SimpleNamespace(num_classes=7, test_score_thresh=0.1, max_detections_per_image=50),
            Limits(7, 0.1, 50),
            id="RetinaNet and FCOS",
        ),
        pytest.param(
            SimpleNamespace(proposal_generator=SimpleNamespace(post_nms_topk={True: 2, False: 9})),
            Limits(1, 0.0, 9),
            id="RPN",
        ),
        pytest.param(
            SimpleNamespace(
                ins_embed_head=None,
                sem_seg_head=head_of(19),
                top_k=200,
            ),
            Limits(19, 0.0, 200, 19),
            id="Panoptic-DeepLab",
        ),
        pytest.param(SimpleNamespace(sem_seg_head=head_of(6)), Limits(0, 0.0, 1, 6), id="semantic"),
        pytest.param(
            SimpleNamespace(sem_seg_head=SimpleNamespace(coarse_sem_seg_head=head_of(6))),
            Limits(0, 0.0, 1, 6),
            id="PointRend's semantic",
        ),
    ],
)
def test_limits(model: SimpleNamespace, limits: Limits) -> None:
    assert limits_of(model) == limits


def test_a_model_of_another_kind_is_rejected() -> None:
    with pytest.raises(ConfigError, match="the meta-architecture is Linear, supported are"):
        limits_of(nn.Linear(1, 1))
