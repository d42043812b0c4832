"""Test-time augmentation: memory, batches, geometry and empty results."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from d2serve.model.augmentation import AugmentedInference, Version, flip_boxes
from d2serve.model.augmentation_config import AugmentationConfig
from d2serve.model.meta_arch import GeneralizedRCNN
from d2serve.model.nms import ScoredBoxes
from d2serve.model.preprocessing import resize_planar
from d2serve.model.roi_heads import pooling_maps
from d2serve.model.structures import Instances, ModelOutput
from tests.goldens.cases import CONFIGS, GoldenModel

EVERYTHING, NOTHING = 10**9, 0


@pytest.fixture(scope="module")
def network() -> GeneralizedRCNN:
    """A tiny Mask R-CNN with random weights and few proposals."""
    built = GoldenModel("tiny", CONFIGS / "mask_rcnn_r50.yaml", None, ()).build()
    assert isinstance(built, GeneralizedRCNN)
    generator = built.proposal_generator
    generator.config = replace(generator.config, pre_nms_topk=40, post_nms_topk=20)
    return built.eval()


def image(height: int, width: int, seed: int = 0) -> Tensor:
    """UInt8[3, H, W] of coarse patches."""
    patches = torch.randint(0, 256, (3, 8, 8), generator=torch.Generator().manual_seed(seed))
    pixels = patches.repeat_interleave(20, dim=1).repeat_interleave(20, dim=2)
    return pixels[:, :height, :width].to(torch.uint8)


def inference(
    network: GeneralizedRCNN, min_sizes: Sequence[int], flip: bool = True, kept: int = EVERYTHING
) -> AugmentedInference:
    config = AugmentationConfig(tuple(min_sizes), 400, flip)
    return AugmentedInference(network, config, resize_planar, kept)


def run(augmented: AugmentedInference, *images: Tensor) -> list[Instances]:
    outputs: list[ModelOutput] = augmented(
        images, [(each.shape[1], each.shape[2]) for each in images]
    )
    return [output.instances for output in outputs]


def assert_equal(one: Instances, other: Instances, tolerance: float = 0.0) -> None:
    assert len(one) == len(other) > 0
    assert one.classes.tolist() == other.classes.tolist()
    for name in ("boxes", "scores", "masks"):
        pair = getattr(one, name), getattr(other, name)
        torch.testing.assert_close(*pair, atol=tolerance, rtol=0)


def test_the_limit_on_memory_does_not_change_results(
    network: GeneralizedRCNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    extract = network.extract

    def counted(images: Sequence[Tensor]) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        return extract(images)

    monkeypatch.setattr(network, "extract", counted)
    sizes = [64, 96, 128]
    pixels = 2 * 128 * 160  # of the largest size, padded, with the flipped image
    results = []
    for kept, expected_calls in ((EVERYTHING, 3), (pixels, 5), (pixels - 1, 4), (NOTHING, 6)):
        calls = 0
        results += run(inference(network, sizes, kept=kept), image(100, 110))
        assert calls == expected_calls, kept
    for other in results[1:]:
        assert_equal(results[0], other)


def test_images_of_a_batch_do_not_affect_one_another(network: GeneralizedRCNN) -> None:
    augmented = inference(network, [64, 96])
    images = [image(100, 110, seed) for seed in range(3)]
    for one, together in zip(images, run(augmented, *images), strict=True):
        [alone] = run(augmented, one)
        assert_equal(alone, together, tolerance=1e-3)


def test_a_mirrored_image_has_mirrored_results(network: GeneralizedRCNN) -> None:
    augmented, original = inference(network, [96, 0]), image(100, 110)
    [plain], [mirrored] = run(augmented, original), run(augmented, original.flip(-1).clone())
    assert mirrored.masks is not None
    back = replace(
        mirrored,
        boxes=flip_boxes(mirrored.boxes, torch.full((len(mirrored),), 110.0)),
        masks=mirrored.masks.flip(-1),
    )
    assert_equal(plain, back, tolerance=1e-3)


def test_masks_are_the_mean_of_those_of_the_versions(network: GeneralizedRCNN) -> None:
    original = image(100, 110)
    [merged] = run(inference(network, [64, 96], flip=False), original)
    masks = []
    for size_hw in ((64, 70), (96, 106)):
        maps = pooling_maps(
            network.extract([resize_planar(original, size_hw)]), network.roi_heads.config
        )
        there = Version([size_hw], [(100, 110)], flip=False).from_original(merged)
        masks.append(network.roi_heads.predict_masks(maps, there))
    torch.testing.assert_close(merged.masks, (masks[0] + masks[1]) / 2, atol=1e-6, rtol=0)


def test_boxes_return_from_a_version_unchanged() -> None:
    version = Version([(50, 100), (200, 80)], [(100, 200), (100, 40)], flip=True)
    boxes = torch.tensor([[10.0, 20, 60, 90], [0.0, 0, 200, 100], [5.0, 6, 35, 80]])
    merged = Instances(boxes, torch.ones(3), torch.zeros(3, dtype=torch.int64), [2, 1])
    there = version.from_original(merged)
    assert there.counts == [2, 1, 2, 1]
    assert there.boxes[[0, 2, 3, 5]].tolist() == [
        [5, 10, 30, 45],
        [10, 12, 70, 160],
        [70, 10, 95, 45],
        [10, 12, 70, 160],
    ]
    back = version.to_original(there)
    assert back.images.tolist() == [0, 0, 1, 0, 0, 1]
    torch.testing.assert_close(back.boxes, boxes.repeat(2, 1))


def test_low_scores_and_further_boxes_are_left_out(network: GeneralizedRCNN) -> None:
    def merged(*scores: float) -> Instances:
        boxes = torch.tensor([[0.0, 0, 50, 50], [0, 0, 48, 50], [0, 0, 48, 50], [60, 0, 120, 50]])
        classes, images = torch.tensor([0, 0, 1, 2]), torch.zeros(4, dtype=torch.int64)
        found = ScoredBoxes(boxes, torch.tensor(scores), classes, images)
        return inference(network, [64])._merge([found], [(100, 110)])

    kept = merged(0.5, 0.6, 0.7, 0.9)
    assert kept.classes.tolist() == [2, 1, 0]
    assert kept.boxes[0].tolist() == [60, 0, 110, 50], "clipped to the image"
    assert merged(0.5, 0.6, 1e-9, 1e-9).classes.tolist() == [0]


def test_an_image_without_detections(
    network: GeneralizedRCNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = network.roi_heads
    selection = replace(heads.config.selection, score_threshold=2.0)
    monkeypatch.setattr(heads, "config", replace(heads.config, selection=selection))
    [none] = run(inference(network, [64, 96]), image(100, 110))
    assert len(none) == 0
    assert none.masks is not None
    assert none.masks.shape[0] == 0
