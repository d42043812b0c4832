"""The same answers on a GPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from handler.detections import Detections
from handler.detector.native import NativeDetector
from handler.settings import Settings
from tests.goldens.answers import read_answer
from tests.goldens.cases import MODELS, TRAINED, GoldenModel
from tests.goldens.comparison import assert_close_to_upstream, compare

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


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("path", TRAINED.pictures, ids=lambda path: path.stem)
def test_answers_in_half_precision_are_close_to_upstreams(precision: str, path: Path) -> None:
    device = torch.device("cuda", 0)
    settings = Settings(precision=precision)
    detector = NativeDetector(TRAINED.build().to(device), device, settings)
    [outcome] = detector.detect([np.array(Image.open(path).convert("RGB"))])
    assert isinstance(outcome.found, Detections)
    assert_close_to_upstream(outcome.found, read_answer(TRAINED.answer_path(path)))
