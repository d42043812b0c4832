"""Networks on a GPU have the same results as on a CPU."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from d2serve.detections import Detections
from d2serve.detector.native import NativeDetector
from d2serve.model.nms import class_wise_nms, nms_per_level
from d2serve.model.preprocessing import to_device, to_host
from d2serve.settings import Settings
from tests.goldens.cases import MODELS, TRAINED, VARIANTS, GoldenModel
from tests.goldens.comparison import assert_close_to_upstream, compare
from tests.goldens.results import read_result
from tests.model.test_nms import THRESHOLD, on_device, scored_boxes
from tests.model.test_synchronization import MAX_SYNCS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


# Four channels need other images; see tests/core/test_channels.py.
OF_THREE_CHANNELS = [each for each in VARIANTS if "four_channels" not in each.name]


@pytest.mark.parametrize("golden", [*MODELS, *OF_THREE_CHANNELS], ids=lambda golden: golden.name)
def test_results_on_a_gpu_equal_upstream(golden: GoldenModel) -> None:
    device = torch.device("cuda", 0)
    detector = NativeDetector(golden.build().to(device), device, Settings())
    images = [np.array(Image.open(path).convert("RGB")) for path in golden.images]
    for path, result in zip(golden.images, detector.detect(images), strict=True):
        assert isinstance(result.output, Detections)
        comparison = compare(read_result(golden.result_path(path)), result.output)
        assert comparison.within_tolerance, (path.name, comparison)


def test_a_backbone_as_cuda_graphs_has_the_same_results() -> None:
    device = torch.device("cuda", 0)
    images = [np.array(Image.open(path).convert("RGB")) for path in TRAINED.images]
    plain, graphed = (
        NativeDetector(TRAINED.build().to(device), device, Settings(cuda_graphs=captured))
        for captured in (False, True)
    )
    # Captured, replayed, and replayed after other sizes and counts have been captured.
    for chosen in (images[:1], images[:1], images[1:], images, images[:1]):
        for expected, result in zip(plain.detect(chosen), graphed.detect(chosen), strict=True):
            one, other = expected.output, result.output
            assert isinstance(one, Detections)
            assert isinstance(other, Detections)
            np.testing.assert_allclose(other.boxes_xyxy, one.boxes_xyxy, atol=1e-3)
            np.testing.assert_allclose(other.scores, one.scores, atol=1e-5)


@pytest.mark.parametrize("golden", MODELS, ids=lambda golden: golden.name)
def test_a_batch_synchronizes_as_often_as_one_image(golden: GoldenModel) -> None:
    device = torch.device("cuda", 0)
    detector = NativeDetector(golden.build().to(device), device, Settings(resize="device"))
    images = [np.array(Image.open(path).convert("RGB")) for path in golden.images[:1]]
    detector.detect(images)
    syncs = []
    for count in (1, 4):
        try:
            with warnings.catch_warnings(record=True) as recorded:
                warnings.simplefilter("always")
                # Warns itself that it is a prototype.
                torch.cuda.set_sync_debug_mode("warn")
                detector.detect(images * count)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        syncs.append(sum("called a synchronizing" in str(each.message) for each in recorded))
    # `where` and NMS synchronize more than once each.
    assert syncs[1] == syncs[0] <= 2 * MAX_SYNCS


def test_nms_on_a_gpu_equals_nms_on_a_cpu() -> None:
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(6, 300, 2, generator=random) * 100
    boxes = torch.cat((corners, corners + torch.rand(6, 300, 2, generator=random) * 60 + 1), dim=2)
    [expected] = nms_per_level([boxes], 0.5)
    [found] = nms_per_level([boxes.cuda()], 0.5)
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("count", [900, 25_001, 140_000])
def test_class_wise_nms_on_a_gpu_equals_that_on_a_cpu(count: int) -> None:
    """One call, a call per image, and group by group (see `class_wise_nms_gpu`)."""
    candidates = scored_boxes(count, classes=80, images=4, seed=6)
    expected = class_wise_nms(candidates, 4, THRESHOLD)
    kept = class_wise_nms(on_device(candidates, torch.device("cuda", 0)), 4, THRESHOLD)
    assert torch.equal(kept.cpu(), expected)


def test_transfers_to_and_from_a_gpu_keep_values() -> None:
    device = torch.device("cuda", 0)
    tensors = [torch.rand(3, 4), torch.arange(5), torch.zeros(0, 2)]
    returned = to_host([to_device(tensor, device) for tensor in tensors])
    for before, after in zip(tensors, returned, strict=True):
        assert after.device.type == "cpu"
        assert torch.equal(after, before.float())


@pytest.mark.parametrize("path", TRAINED.images, ids=lambda path: path.stem)
def test_results_with_resizing_on_the_gpu_are_close_to_upstream(path: Path) -> None:
    device = torch.device("cuda", 0)
    detector = NativeDetector(TRAINED.build().to(device), device, Settings(resize="device"))
    [result] = detector.detect([np.array(Image.open(path).convert("RGB"))])
    assert isinstance(result.output, Detections)
    assert_close_to_upstream(result.output, read_result(TRAINED.result_path(path)))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("path", TRAINED.images, ids=lambda path: path.stem)
def test_results_in_half_precision_are_close_to_upstream(precision: str, path: Path) -> None:
    device = torch.device("cuda", 0)
    settings = Settings(precision=precision)
    detector = NativeDetector(TRAINED.build().to(device), device, settings)
    [result] = detector.detect([np.array(Image.open(path).convert("RGB"))])
    assert isinstance(result.output, Detections)
    assert_close_to_upstream(result.output, read_result(TRAINED.result_path(path)))
