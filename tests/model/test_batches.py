"""An answer does not depend on what else is in the batch."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from d2serve.detections import Detections, Picture
from d2serve.detector.base import Failure, Outcome
from d2serve.detector.native import NativeDetector
from d2serve.model.config import RCNNConfig
from d2serve.model.meta_arch import GeneralizedRCNN, build_network
from d2serve.model.network import Network
from d2serve.model.structures import Found
from d2serve.settings import Settings
from tests.goldens.cases import TINY

BOX_NOISE_PX = 0.01
SIZES_HW = [(256, 320), (320, 256), (256, 320), (90, 200), (256, 330)]


def build() -> Network:
    by_name = {golden.name: golden for golden in TINY}
    return by_name["mask_rcnn_r50"].build()


@pytest.fixture(scope="module")
def model() -> GeneralizedRCNN:
    model = build()
    assert isinstance(model, GeneralizedRCNN)
    return model


@pytest.fixture
def family(model: GeneralizedRCNN) -> RCNNConfig:
    assert isinstance(model.config.family, RCNNConfig)
    return model.config.family


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES_HW]


def detector(model: Network, **settings: int | str) -> NativeDetector:
    return NativeDetector(model, torch.device("cpu"), Settings(**settings))  # type: ignore[arg-type]


def found(outcome: Outcome) -> Detections:
    assert isinstance(outcome.found, Detections)
    return outcome.found


def assert_same(alone: Detections, together: Detections) -> None:
    assert together.size_hw == alone.size_hw
    assert together.classes.tolist() == alone.classes.tolist()
    assert len(alone) > 0, "nothing found proves nothing"
    np.testing.assert_allclose(together.boxes_xyxy, alone.boxes_xyxy, atol=BOX_NOISE_PX)
    np.testing.assert_allclose(together.scores, alone.scores, atol=1e-4)
    assert alone.masks is not None
    assert together.masks is not None
    np.testing.assert_allclose(together.masks, alone.masks, atol=1e-3)


@pytest.mark.parametrize("images_per_forward", [1, 2, 8])
def test_each_answer_is_that_of_the_picture_alone(
    model: GeneralizedRCNN, pictures: Sequence[Picture], images_per_forward: int
) -> None:
    together = detector(model, images_per_forward=images_per_forward).detect(pictures)
    assert max(outcome.batch for outcome in together) == min(images_per_forward, 2)
    for picture, outcome in zip(pictures, together, strict=True):
        [alone] = detector(model).detect([picture])
        assert_same(found(alone), found(outcome))


def test_pictures_of_one_padded_size_run_together(
    model: GeneralizedRCNN, pictures: Sequence[Picture]
) -> None:
    batches = [outcome.batch for outcome in detector(model).detect(pictures)]
    assert batches == [2, 1, 2, 1, 1]


def test_batch_padding_runs_wide_pictures_together_and_tall_ones_apart(
    model: GeneralizedRCNN, pictures: Sequence[Picture]
) -> None:
    batches = [outcome.batch for outcome in detector(model, padding="batch").detect(pictures)]
    assert batches == [4, 1, 4, 4, 4]


def test_no_pictures_no_outcomes(model: GeneralizedRCNN) -> None:
    assert detector(model).detect([]) == []


def with_family(model: Network, family: RCNNConfig) -> Network:
    changed = build_network(replace(model.config, family=family))
    changed.load_state_dict(build().state_dict())
    return changed.eval()


def with_threshold(family: RCNNConfig, score: float) -> RCNNConfig:
    selection = replace(family.roi_heads.selection, score_threshold=score)
    return replace(family, roi_heads=replace(family.roi_heads, selection=selection))


@pytest.mark.parametrize("nothing", ["no proposals", "no detections"])
def test_nothing_found_is_an_empty_answer(
    model: GeneralizedRCNN, family: RCNNConfig, pictures: Sequence[Picture], nothing: str
) -> None:
    if nothing == "no proposals":
        family = replace(family, rpn=replace(family.rpn, min_box_size=10_000.0))
    else:
        family = with_threshold(family, 1.0)
    for outcome in detector(with_family(model, family)).detect(pictures):
        empty = found(outcome)
        assert len(empty) == 0
        assert empty.masks is not None
        assert empty.masks.shape == (0, 28, 28)


def test_an_empty_answer_beside_a_full_one(
    model: GeneralizedRCNN, family: RCNNConfig, pictures: Sequence[Picture]
) -> None:
    pair = [np.zeros_like(pictures[0]), pictures[0]]
    best = [float(found(outcome).scores[0]) for outcome in detector(model).detect(pair)]
    assert best[0] != best[1]
    strict = with_family(model, with_threshold(family, sum(best) / 2))
    counts = [len(found(outcome)) for outcome in detector(strict).detect(pair)]
    assert [count > 0 for count in counts] == [score > sum(best) / 2 for score in best]
    for picture, outcome in zip(pair, detector(strict).detect(pair), strict=True):
        [alone] = detector(strict).detect([picture])
        np.testing.assert_allclose(
            found(outcome).boxes_xyxy, found(alone).boxes_xyxy, atol=BOX_NOISE_PX
        )


def fail_as_a_kernel_does() -> None:
    raise RuntimeError("a kernel failed")


def fail_as_the_gpu_does() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def ask_the_cpu_for_too_much() -> None:
    torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("fail", "failure"),
    [
        (fail_as_a_kernel_does, Failure.FAULT),
        (fail_as_the_gpu_does, Failure.OUT_OF_MEMORY),
        (ask_the_cpu_for_too_much, Failure.OUT_OF_MEMORY),
    ],
)
def test_a_picture_that_fails_the_forward_leaves_its_neighbours_their_answers(
    model: GeneralizedRCNN,
    family: RCNNConfig,
    pictures: Sequence[Picture],
    fail: Callable[[], None],
    failure: Failure,
) -> None:
    class FailsOnTheSmall(GeneralizedRCNN):
        def forward(
            self, images: Sequence[Tensor], original_sizes_hw: Sequence[tuple[int, int]]
        ) -> list[Found]:
            if any(height < 100 for height, _ in original_sizes_hw):
                fail()
            return super().forward(images, original_sizes_hw)

    failing = FailsOnTheSmall(model.config, family)
    failing.load_state_dict(build().state_dict())
    outcomes = detector(failing.eval(), padding="batch").detect(pictures)
    failed = [outcome.found is failure for outcome in outcomes]
    assert failed == [height < 100 for height, _ in SIZES_HW]
