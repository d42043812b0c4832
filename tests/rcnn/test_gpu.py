"""The same answers on a GPU."""

import numpy as np
import pytest
import torch
from PIL import Image

from handler.detections import Detections
from handler.detector.native import NativeDetector
from handler.settings import Settings
from tests.goldens.answers import read_answer
from tests.goldens.cases import MODELS, GoldenModel
from tests.goldens.comparison import compare

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
