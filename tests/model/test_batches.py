"""The result for an image does not depend on the other images of its batch."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from d2serve.detections import Detections, RGBImage
from d2serve.detector.base import Failure, InferenceResult
from d2serve.detector.native import NativeDetector
from d2serve.model.config import RCNNConfig
from d2serve.model.meta_arch import GeneralizedRCNN, build_network
from d2serve.model.network import Network
from d2serve.model.structures import ModelOutput
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
def images() -> list[RGBImage]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES_HW]


def detector(model: Network, **settings: int | str) -> NativeDetector:
    return NativeDetector(model, torch.device("cpu"), Settings(**settings))  # type: ignore[arg-type]


def detections(result: InferenceResult) -> Detections:
    assert isinstance(result.output, Detections)
    return result.output


def assert_same(alone: Detections, together: Detections) -> None:
    assert together.size_hw == alone.size_hw
    assert together.classes.tolist() == alone.classes.tolist()
    assert len(alone) > 0, "a comparison needs detections"
    np.testing.assert_allclose(together.boxes_xyxy, alone.boxes_xyxy, atol=BOX_NOISE_PX)
    np.testing.assert_allclose(together.scores, alone.scores, atol=1e-4)
    assert alone.masks is not None
    assert together.masks is not None
    np.testing.assert_allclose(together.masks, alone.masks, atol=1e-3)


@pytest.mark.parametrize("images_per_forward", [1, 2, 8])
def test_results_equal_those_of_each_image_alone(
    model: GeneralizedRCNN, images: Sequence[RGBImage], images_per_forward: int
) -> None:
    together = detector(model, images_per_forward=images_per_forward).detect(images)
    assert max(result.batch for result in together) == min(images_per_forward, 2)
    for image, result in zip(images, together, strict=True):
        [alone] = detector(model).detect([image])
        assert_same(detections(alone), detections(result))


def test_images_of_one_padded_size_run_together(
    model: GeneralizedRCNN, images: Sequence[RGBImage]
) -> None:
    batches = [result.batch for result in detector(model).detect(images)]
    assert batches == [2, 1, 2, 1, 1]


def test_batch_padding_batches_images_of_one_orientation(
    model: GeneralizedRCNN, images: Sequence[RGBImage]
) -> None:
    batches = [result.batch for result in detector(model, padding="batch").detect(images)]
    assert batches == [4, 1, 4, 4, 4]


def test_no_images_give_no_results(model: GeneralizedRCNN) -> None:
    assert detector(model).detect([]) == []


def with_family(model: Network, family: RCNNConfig) -> Network:
    changed = build_network(replace(model.config, family=family))
    changed.load_state_dict(build().state_dict())
    return changed.eval()


def with_threshold(family: RCNNConfig, score: float) -> RCNNConfig:
    selection = replace(family.roi_heads.selection, score_threshold=score)
    return replace(family, roi_heads=replace(family.roi_heads, selection=selection))


@pytest.mark.parametrize("nothing", ["no proposals", "no detections"])
def test_an_image_without_detections_has_an_empty_result(
    model: GeneralizedRCNN, family: RCNNConfig, images: Sequence[RGBImage], nothing: str
) -> None:
    if nothing == "no proposals":
        family = replace(family, rpn=replace(family.rpn, min_box_size=10_000.0))
    else:
        family = with_threshold(family, 1.0)
    for result in detector(with_family(model, family)).detect(images):
        empty = detections(result)
        assert len(empty) == 0
        assert empty.masks is not None
        assert empty.masks.shape == (0, 28, 28)


def test_an_empty_result_in_a_batch_with_a_full_one(
    model: GeneralizedRCNN, family: RCNNConfig, images: Sequence[RGBImage]
) -> None:
    pair = [np.zeros_like(images[0]), images[0]]
    best = [float(detections(result).scores[0]) for result in detector(model).detect(pair)]
    assert best[0] != best[1]
    strict = with_family(model, with_threshold(family, sum(best) / 2))
    counts = [len(detections(result)) for result in detector(strict).detect(pair)]
    assert [count > 0 for count in counts] == [score > sum(best) / 2 for score in best]
    for image, result in zip(pair, detector(strict).detect(pair), strict=True):
        [alone] = detector(strict).detect([image])
        np.testing.assert_allclose(
            detections(result).boxes_xyxy, detections(alone).boxes_xyxy, atol=BOX_NOISE_PX
        )


def raise_kernel_error() -> None:
    raise RuntimeError("a kernel failed")


def raise_gpu_out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def exhaust_cpu_memory() -> None:
    torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("fail", "failure"),
    [
        (raise_kernel_error, Failure.ERROR),
        (raise_gpu_out_of_memory, Failure.OUT_OF_MEMORY),
        (exhaust_cpu_memory, Failure.OUT_OF_MEMORY),
    ],
)
def test_an_image_that_fails_the_forward_pass_does_not_affect_its_batch(
    model: GeneralizedRCNN,
    family: RCNNConfig,
    images: Sequence[RGBImage],
    fail: Callable[[], None],
    failure: Failure,
) -> None:
    class FailsOnSmallImages(GeneralizedRCNN):
        def forward(
            self, images: Sequence[Tensor], original_sizes_hw: Sequence[tuple[int, int]]
        ) -> list[ModelOutput]:
            if any(height < 100 for height, _ in original_sizes_hw):
                fail()
            return super().forward(images, original_sizes_hw)

    failing = FailsOnSmallImages(model.config, family)
    failing.load_state_dict(build().state_dict())
    results = detector(failing.eval(), padding="batch").detect(images)
    failed = [result.output is failure for result in results]
    assert failed == [height < 100 for height, _ in SIZES_HW]
