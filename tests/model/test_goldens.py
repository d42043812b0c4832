"""Networks reproduce the stored results of upstream."""

from functools import lru_cache
from pathlib import Path

import pytest
import torch

from d2serve.detections import Detections
from d2serve.detector.native import NativeDetector
from d2serve.settings import Settings
from tests.goldens.cases import AUGMENTED, MODELS, VARIANTS, GoldenModel
from tests.goldens.comparison import compare
from tests.goldens.results import read_result

ROWS = [
    pytest.param(model, image, id=f"{model.name}-{image.stem}")
    for model in (*MODELS, *VARIANTS, *AUGMENTED)
    for image in model.images
]


@lru_cache(maxsize=1)  # the images of a model follow one another
def detector_for(model: GoldenModel) -> NativeDetector:
    return NativeDetector(model.build(), torch.device("cpu"), Settings())


@pytest.mark.parametrize(("model", "image"), ROWS)
def test_results_equal_upstream(model: GoldenModel, image: Path) -> None:
    [result] = detector_for(model).detect([model.pixels(image)])
    assert isinstance(result.output, Detections)
    expected = read_result(model.result_path(image))
    assert expected.has_content
    comparison = compare(expected, result.output)
    assert comparison.within_tolerance, comparison
