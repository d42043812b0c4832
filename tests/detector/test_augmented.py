"""The native detector with test-time augmentation: batches, memory, resizing and CUDA graphs."""

import logging
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from d2serve.detections import Detections, RGBImage
from d2serve.detector.cuda_graphs import GraphedBackbone
from d2serve.detector.native import NativeDetector
from d2serve.model.meta_arch import GeneralizedRCNN
from d2serve.model.network import Network
from d2serve.settings import Settings
from tests.goldens.cases import AUGMENTED

# A Faster R-CNN in sizes 128 and 160, flipped too.
[GOLDEN] = [golden for golden in AUGMENTED if golden.config.stem == "faster_rcnn"]


@pytest.fixture(scope="module")
def network() -> Network:
    """The network, with few proposals."""
    built = GOLDEN.build()
    assert isinstance(built, GeneralizedRCNN)
    generator = built.proposal_generator
    generator.config = replace(generator.config, pre_nms_topk=40, post_nms_topk=20)
    return built.eval()


def detector(network: Network, **settings: Any) -> NativeDetector:
    return NativeDetector(deepcopy(network), torch.device("cpu"), Settings(**settings))


def image(height: int, width: int) -> RGBImage:
    patches = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    pixels = patches.repeat(height // 8 + 1, axis=0).repeat(width // 10 + 1, axis=1)
    return np.ascontiguousarray(pixels[:height, :width])


def test_batches_and_their_memory_depend_on_all_versions(network: Network) -> None:
    augmented = detector(network)
    one = augmented.preprocess(image(300, 400))
    assert one.image.shape == (3, 300, 400), "resized later"
    sizes = [(128, 192), (160, 224)] * 2
    assert augmented.batch_key(one) == tuple(sizes)
    assert augmented.padded_pixels(one) == sum(height * width for height, width in sizes)
    # Padded equally as 128x171 and 128x176, but not as 160x214 and 160x225.
    other = augmented.preprocess(image(300, 422))
    assert augmented.batch_key(other)[0] == sizes[0]  # type: ignore[index]
    assert augmented.batch_key(other) != augmented.batch_key(one)


def test_images_of_one_orientation_run_together_with_padding_batch(network: Network) -> None:
    augmented = detector(network, padding="batch")
    sizes = ((300, 400), (300, 422), (400, 300))
    keys = [augmented.batch_key(augmented.preprocess(image(*size))) for size in sizes]
    assert keys[0] == keys[1] != keys[2]


def test_a_batch_gives_the_results_of_single_images_resized_by_either_device(
    network: Network,
) -> None:
    images = [image(150, 200), image(151, 200)]
    augmented = detector(network)
    together = augmented.detect(images)
    assert [result.batch for result in together] == [2, 2]
    [alone] = augmented.detect(images[:1])
    [on_device] = detector(network, resize="device").detect(images[:1])
    first = together[0].output
    assert isinstance(first, Detections)
    assert len(first) > 0
    for result, tolerance in ((alone, 1e-3), (on_device, 1.0)):
        assert isinstance(result.output, Detections)
        np.testing.assert_allclose(result.output.boxes_xyxy, first.boxes_xyxy, atol=tolerance)


def test_cuda_graphs_have_no_effect(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        augmented = detector(network, cuda_graphs=True)
    assert caplog.messages == ["the setting cuda_graphs has no effect: the archive augments images"]
    assert not isinstance(augmented.model.backbone, GraphedBackbone)
