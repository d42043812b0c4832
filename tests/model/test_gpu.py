"""The same answers on a GPU."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from d2serve.detections import Detections
from d2serve.detector.native import NativeDetector
from d2serve.model.image_list import to_device, to_host
from d2serve.model.nms import nms_of_levels
from d2serve.settings import Settings
from tests.goldens.answers import read_answer
from tests.goldens.cases import MODELS, TRAINED, GoldenModel
from tests.goldens.comparison import assert_close_to_upstream, compare
from tests.model.test_syncs import MOST_WAITS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.mark.parametrize("golden", MODELS, ids=lambda golden: golden.name)
def test_answers_on_the_gpu_as_upstream_does(golden: GoldenModel) -> None:
    device = torch.device("cuda", 0)
    detector = NativeDetector(golden.build().to(device), device, Settings())
    pictures = [np.array(Image.open(path).convert("RGB")) for path in golden.pictures]
    for path, outcome in zip(golden.pictures, detector.detect(pictures), strict=True):
        assert isinstance(outcome.found, Detections)
        comparison = compare(read_answer(golden.answer_path(path)), outcome.found)
        assert comparison.within_tolerance, (path.name, comparison)


def test_a_recorded_backbone_answers_as_the_plain_one() -> None:
    device = torch.device("cuda", 0)
    pictures = [np.array(Image.open(path).convert("RGB")) for path in TRAINED.pictures]
    plain, graphed = (
        NativeDetector(TRAINED.build().to(device), device, Settings(cuda_graphs=recorded))
        for recorded in (False, True)
    )
    # Recorded, replayed, and replayed after other sizes and counts have been recorded.
    for chosen in (pictures[:1], pictures[:1], pictures[1:], pictures, pictures[:1]):
        for expected, outcome in zip(plain.detect(chosen), graphed.detect(chosen), strict=True):
            there, here = expected.found, outcome.found
            assert isinstance(there, Detections)
            assert isinstance(here, Detections)
            np.testing.assert_allclose(here.boxes_xyxy, there.boxes_xyxy, atol=1e-3)
            np.testing.assert_allclose(here.scores, there.scores, atol=1e-5)


@pytest.mark.parametrize("golden", MODELS, ids=lambda golden: golden.name)
def test_a_batch_waits_for_the_gpu_where_it_has_to_and_nowhere_else(golden: GoldenModel) -> None:
    device = torch.device("cuda", 0)
    detector = NativeDetector(golden.build().to(device), device, Settings(resize="device"))
    pictures = [np.array(Image.open(path).convert("RGB")) for path in golden.pictures[:1]]
    detector.detect(pictures)
    waits = []
    for count in (1, 4):
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                detector.detect(pictures * count)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("synchroniz" in str(warning.message) for warning in told))
    # Finding places and suppressing wait more than once each.
    assert waits[1] == waits[0] <= 2 * MOST_WAITS


def test_suppression_on_the_gpu_is_that_on_the_cpu() -> None:
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(6, 300, 2, generator=random) * 100
    boxes = torch.cat((corners, corners + torch.rand(6, 300, 2, generator=random) * 60 + 1), dim=2)
    [expected] = nms_of_levels([boxes], 0.5)
    [found] = nms_of_levels([boxes.cuda()], 0.5)
    assert torch.equal(found.cpu(), expected)


def test_results_come_in_one_copy_and_pictures_go_out_of_pinned_memory() -> None:
    device = torch.device("cuda", 0)
    tensors = [torch.rand(3, 4), torch.arange(5), torch.zeros(0, 2)]
    returned = to_host([to_device(tensor, device) for tensor in tensors])
    for before, after in zip(tensors, returned, strict=True):
        assert after.device.type == "cpu"
        assert torch.equal(after, before.float())


@pytest.mark.parametrize("path", TRAINED.pictures, ids=lambda path: path.stem)
def test_pictures_resized_on_the_gpu_get_answers_close_to_upstreams(path: Path) -> None:
    device = torch.device("cuda", 0)
    detector = NativeDetector(TRAINED.build().to(device), device, Settings(resize="device"))
    [outcome] = detector.detect([np.array(Image.open(path).convert("RGB"))])
    assert isinstance(outcome.found, Detections)
    assert_close_to_upstream(outcome.found, read_answer(TRAINED.answer_path(path)))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("path", TRAINED.pictures, ids=lambda path: path.stem)
def test_answers_in_half_precision_are_close_to_upstreams(precision: str, path: Path) -> None:
    device = torch.device("cuda", 0)
    settings = Settings(precision=precision)
    detector = NativeDetector(TRAINED.build().to(device), device, settings)
    [outcome] = detector.detect([np.array(Image.open(path).convert("RGB"))])
    assert isinstance(outcome.found, Detections)
    assert_close_to_upstream(outcome.found, read_answer(TRAINED.answer_path(path)))
