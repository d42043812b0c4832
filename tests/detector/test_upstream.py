"""The detector on the upstream package, where that is installed: each kind of model end to end."""

import zipfile
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from d2serve.building.archive import build_archive
from d2serve.detections import Detections, RGBImage
from d2serve.detector.detectron2.detector import UpstreamDetector
from d2serve.detector.detectron2.model import Resizing
from d2serve.detector.native import NativeDetector
from d2serve.errors import CheckpointError, ConfigError, RequestError
from d2serve.masks.paste import paste_mask
from d2serve.serving.loading import load_detector
from d2serve.serving.model_config import read_settings
from d2serve.settings import Settings
from tests.detector.upstream_models import (
    CONFIGS,
    upstream_marks,
    upstream_outputs,
    write_checkpoint,
)
from tests.goldens.cases import TINY, VARIANTS, GoldenModel
from tests.goldens.comparison import compare
from tests.goldens.results import read_result

pytestmark = upstream_marks

CPU = torch.device("cpu")
# Padded as the network does it, the first two are of one size.
SIZES_HW = [(96, 130), (96, 140), (150, 90)]
NEEDS = {"vitdet.py": "timm", "panoptic_deeplab.yaml": "panopticapi"}


def _row(config: Path) -> Any:
    needed = NEEDS.get(config.name, "detectron2")
    missing = find_spec(needed) is None
    mark = pytest.mark.skipif(missing, reason=f"{config.name} needs {needed}")
    return pytest.param(config, id=config.stem, marks=mark)


# One golden of each family that both run.
FAMILIES = [
    golden
    for golden in TINY
    if golden.name
    in {
        "cascade_mask_rcnn_gn",
        "keypoint_rcnn",
        "mask_rcnn_c4",
        "mask_rcnn_r50",
        "mask_rcnn_vitdet",
        "panoptic_fpn",
        "retinanet",
        "rpn_fpn",
        "semantic_fpn",
    }
]
MODELS = [_row(config) for config in sorted(CONFIGS.iterdir()) if config.stem != "base_small"]


@pytest.fixture(scope="module", params=MODELS)
def detector(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> UpstreamDetector:
    """Load the detector of an unpacked archive."""
    config = request.param
    checkpoint = tmp_path_factory.mktemp("checkpoint") / "model_final.pth"
    write_checkpoint(config, checkpoint)
    folder = tmp_path_factory.mktemp("archive")
    write_archive(folder, config, checkpoint, "detectron2")
    loaded = load_detector(folder, CPU, read_settings(folder / "model-config.yaml"))
    assert isinstance(loaded, UpstreamDetector)
    return loaded


def write_archive(folder: Path, config: Path, checkpoint: Path, runtime: str) -> None:
    """Build an archive and unpack it."""
    archive = build_archive(config, checkpoint, folder.parent / "model.mar", runtime=runtime)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)


@pytest.fixture(scope="module")
def images() -> list[RGBImage]:
    """Coarse patches of colour, so that a resized image still shows something."""
    random = np.random.default_rng(0)
    patches = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    large = patches.repeat(10, axis=0).repeat(10, axis=1)
    return [np.ascontiguousarray(large[-height:, :width]) for height, width in SIZES_HW]


def found_in(detector: Any, images: list[RGBImage]) -> Iterator[Detections]:
    for outcome in detector.detect(images):
        assert isinstance(outcome.output, Detections)
        yield outcome.output


def test_results_equal_those_of_the_models_own_forward_pass(
    detector: UpstreamDetector, images: list[RGBImage]
) -> None:
    for image, found in zip(images, found_in(detector, images), strict=True):
        expected_outputs = upstream_outputs(detector.model, detector.resizing, image)
        assert expected_outputs.keys() <= {"instances", "proposals", "sem_seg", "panoptic_seg"}
        for name, assert_same in SAME.items():
            if name in expected_outputs:
                assert_same(expected_outputs[name], found)


def assert_same_instances(expected: Any, found: Detections) -> None:
    assert len(expected) > 0, "nothing found proves nothing"
    boxes = expected.pred_boxes.tensor.numpy()
    order = np.argsort(-expected.scores.numpy(), kind="stable")
    assert found.classes.tolist() == expected.pred_classes.numpy()[order].tolist()
    np.testing.assert_allclose(found.scores, expected.scores.clamp(0, 1).numpy()[order], atol=1e-4)
    if boxes.shape[1] == 4:
        np.testing.assert_allclose(found.boxes_xyxy, boxes[order], atol=0.01)
    else:
        assert_covers_centres(boxes[order], found)
    if expected.has("pred_keypoints"):
        assert found.keypoints is not None
        np.testing.assert_allclose(found.keypoints, expected.pred_keypoints[order], atol=0.01)
    if expected.has("pred_masks"):
        assert_same_masks(expected.pred_masks[order].numpy(), found)


def assert_covers_centres(rotated: np.ndarray[Any, Any], found: Detections) -> None:
    """A rotated box's mask covers its centre, and about its area where it is all in the image."""
    for index, (x, y, width, height, _) in enumerate(rotated):
        mask = pasted(found, index)
        if 1 <= x < mask.shape[1] - 1 and 1 <= y < mask.shape[0] - 1:
            assert mask[int(y), int(x)]
        x1, y1, x2, y2 = found.boxes_xyxy[index]
        if x1 > 0 and y1 > 0 and x2 < mask.shape[1] and y2 < mask.shape[0]:
            assert mask.sum() == pytest.approx(width * height, rel=0.05)


def assert_same_masks(expected: np.ndarray[Any, Any], found: Detections) -> None:
    assert expected.any()
    for index, mask in enumerate(expected):
        ours = pasted(found, index)
        # A pixel or two may be at the threshold.
        assert np.logical_xor(ours, mask).sum() <= max(2, 0.005 * np.logical_or(ours, mask).sum())


def pasted(found: Detections, index: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    assert found.masks is not None
    region = paste_mask(found.masks[index], found.boxes_xyxy[index], found.size_hw)
    return region.full(found.size_hw)


def assert_same_proposals(expected: Any, found: Detections) -> None:
    assert len(expected) > 0
    order = np.argsort(-expected.objectness_logits.numpy(), kind="stable")
    boxes = expected.proposal_boxes.tensor.numpy()[order]
    np.testing.assert_allclose(found.boxes_xyxy, boxes, atol=0.01)
    scores = expected.objectness_logits.sigmoid().numpy()[order]
    np.testing.assert_allclose(found.scores, scores, atol=1e-4)


def assert_same_semantic(expected: torch.Tensor, found: Detections) -> None:
    assert found.semantic is not None
    assert (expected.argmax(dim=0).numpy() == found.semantic).mean() > 0.999


def assert_same_panoptic(expected: tuple[torch.Tensor, Any], found: Detections) -> None:
    assert found.panoptic is not None
    ids, segments = expected
    pairs = set(zip(ids.flatten().tolist(), found.panoptic.ids.flatten().tolist(), strict=True))
    here, there = ({pair[side] for pair in pairs} for side in (0, 1))
    assert len(pairs) == len(here) == len(there) > 1, "each segment of one is one of the other"
    if segments is not None:
        assert [(s["id"], s["category_id"], s["isthing"]) for s in segments] == [
            (s.id, s.class_index, s.is_thing) for s in found.panoptic.segments
        ]


SAME = {
    "instances": assert_same_instances,
    "proposals": assert_same_proposals,
    "sem_seg": assert_same_semantic,
    "panoptic_seg": assert_same_panoptic,
}


def test_a_batch_gives_the_results_of_single_images(
    detector: UpstreamDetector, images: list[RGBImage]
) -> None:
    outcomes = detector.detect(images)
    assert [outcome.batch for outcome in outcomes] in ([2, 2, 1], [3, 3, 3], [1, 1, 1])
    together = list(found_in(detector, images))
    for image, found in zip(images, together, strict=True):
        [alone] = found_in(detector, [image])
        assert_same_detections(alone, found)


def assert_same_detections(one: Detections, other: Detections) -> None:
    assert one.size_hw == other.size_hw
    assert one.classes.tolist() == other.classes.tolist()
    np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=0.01)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    for name in ("masks", "keypoints"):
        pair = getattr(one, name), getattr(other, name)
        assert (pair[0] is None) == (pair[1] is None)
        if pair[0] is not None:
            np.testing.assert_allclose(*pair, atol=0.01)
    assert (one.semantic is None) == (other.semantic is None)
    if one.semantic is not None:
        assert (one.semantic == other.semantic).mean() > 0.999
    assert (one.panoptic is None) == (other.panoptic is None)
    if one.panoptic is not None and other.panoptic is not None:
        assert (one.panoptic.ids == other.panoptic.ids).mean() > 0.999


@pytest.mark.parametrize("golden", FAMILIES, ids=lambda golden: golden.name)
def test_both_runtimes_give_the_same_results(
    golden: Any, tmp_path: Path, images: list[RGBImage]
) -> None:
    network = golden.build()
    checkpoint = tmp_path / "model_final.pth"
    torch.save({"model": network.state_dict()}, checkpoint)
    folder = tmp_path / "archive"
    write_archive(folder, golden.config, checkpoint, "detectron2")
    upstream = load_detector(folder, CPU, Settings(runtime="detectron2"))
    native = NativeDetector(network, CPU, Settings())
    for limit in ("num_classes", "num_stuff_classes", "score_threshold", "max_detections"):
        assert getattr(upstream, limit) == getattr(native, limit)
    pairs = zip(found_in(upstream, images), found_in(native, images), strict=True)
    for ours, theirs in pairs:
        assert len(ours) > 0 or ours.semantic is not None
        assert_same_detections(ours, theirs)


# Other channels than three, and limits of proposals that are not above 0.
OF_EITHER_RUNTIME = [
    golden
    for golden in VARIANTS
    if golden.config.stem
    in {
        "all_but_the_worst_proposals",
        "four_channels",
        "four_channels_bgr",
        "grey",
        "grey_c4",
        "lazy_grey",
        "panoptic_without_candidates",
        "panoptic_without_proposals",
        "proposals_but_the_worst",
    }
]


def archived(golden: GoldenModel, tmp_path: Path) -> UpstreamDetector:
    """Load the detector of an archive of a golden model for the package."""
    checkpoint = tmp_path / "model_final.pth"
    torch.save({"model": golden.build().state_dict()}, checkpoint)
    write_archive(tmp_path / "archive", golden.config, checkpoint, "detectron2")
    loaded = load_detector(tmp_path / "archive", CPU, Settings(runtime="detectron2"))
    assert isinstance(loaded, UpstreamDetector)
    return loaded


@pytest.mark.parametrize("golden", OF_EITHER_RUNTIME, ids=lambda golden: golden.config.stem)
def test_variants_give_the_stored_results(golden: GoldenModel, tmp_path: Path) -> None:
    upstream = archived(golden, tmp_path)
    native = NativeDetector(golden.build(), CPU, Settings())
    for limit in ("channels", "num_classes", "num_stuff_classes", "max_detections"):
        assert getattr(upstream, limit) == getattr(native, limit), limit
    [path] = golden.images
    [found] = found_in(upstream, [golden.pixels(path)])
    comparison = compare(read_result(golden.result_path(path)), found)
    assert comparison.within_tolerance, comparison


@pytest.mark.parametrize("name", ["four_channels", "four_channels_bgr"])
def test_a_fourth_channel_is_only_added_where_it_is_alpha(
    name: str, tmp_path: Path, images: list[RGBImage]
) -> None:
    [golden] = [golden for golden in VARIANTS if golden.config.stem == name]
    detector = archived(golden, tmp_path)
    if name == "four_channels_bgr":
        with pytest.raises(RequestError, match="has 3 channels, but the model takes 4"):
            detector.preprocess(images[0])
        return
    opaque = np.full((*images[0].shape[:2], 1), 255, dtype=np.uint8)
    added = detector.preprocess(images[0]).image
    sent = detector.preprocess(np.concatenate((images[0], opaque), axis=2)).image
    assert added.shape[0] == 4
    assert torch.equal(added, sent)


def test_a_checkpoint_of_another_config_is_rejected(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model_final.pth"
    write_checkpoint(CONFIGS / "proposals.yaml", checkpoint)
    with pytest.raises(CheckpointError, match=r"missing: sem_seg_head(.|\n)*unexpected: proposal"):
        write_archive(tmp_path / "archive", CONFIGS / "semantic.yaml", checkpoint, "detectron2")


def test_a_checkpoint_of_other_widths_is_rejected(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model_final.pth"
    write_checkpoint(CONFIGS / "proposals.yaml", checkpoint)
    wider = tmp_path / "config.yaml"
    wider.write_text(f"_BASE_: {CONFIGS / 'proposals.yaml'}\nMODEL: {{FPN: {{OUT_CHANNELS: 24}}}}")
    with pytest.raises(CheckpointError, match=r"size mismatch for backbone\.fpn"):
        write_archive(tmp_path / "archive", wider, checkpoint, "detectron2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param({"NO_SUCH_KEY": 1}, "detectron2: .*NO_SUCH_KEY", id="a key of nobody's"),
        pytest.param(
            {"MODEL": {"META_ARCHITECTURE": "Nothing"}}, "cannot build .*Nothing", id="no such name"
        ),
        pytest.param({"INPUT": {"FORMAT": "YUV-BT.601"}}, "input format is 'YUV", id="YUV"),
    ],
)
def test_a_config_that_the_package_rejects_is_reported(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    checkpoint = tmp_path / "model_final.pth"
    torch.save({"weight": torch.zeros(1)}, checkpoint)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"_BASE_": str(CONFIGS / "proposals.yaml"), **content}))
    with pytest.raises(ConfigError, match=message):
        write_archive(tmp_path / "archive", config, checkpoint, "detectron2")


@pytest.mark.parametrize(("min_size", "max_size"), [(0, 100), (128, 129)])
def test_images_larger_than_the_networks_square_are_rejected(min_size: int, max_size: int) -> None:
    model = SimpleNamespace(
        num_classes=1,
        test_score_thresh=0.05,
        max_detections_per_image=100,
        backbone=SimpleNamespace(size_divisibility=32, padding_constraints={"square_size": 128}),
    )
    make = partial(UpstreamDetector, model, device=CPU, settings=Settings())
    assert make(resizing=Resizing("RGB", 128, 128)).runner.padded_sizes((50, 60)) == [(128, 128)]
    with pytest.raises(ConfigError, match="max_size of 128"):
        make(resizing=Resizing("RGB", min_size, max_size))
