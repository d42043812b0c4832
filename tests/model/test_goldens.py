"""Our network against upstream's stored answers."""

from functools import cache
from pathlib import Path

import pytest
import torch

from d2serve.detections import Detections
from d2serve.detector.native import NativeDetector
from d2serve.inputs.images import decode_image
from d2serve.settings import Settings
from tests.goldens.answers import read_answer
from tests.goldens.cases import MODELS, GoldenModel
from tests.goldens.comparison import compare

ROWS = [
    pytest.param(model, picture, id=f"{model.name}-{picture.stem}")
    for model in MODELS
    for picture in model.pictures
]


@cache
def detector_for(model: GoldenModel) -> NativeDetector:
    return NativeDetector(model.build(), torch.device("cpu"), Settings())


@pytest.mark.parametrize(("model", "picture"), ROWS)
def test_answers_as_upstream_does(model: GoldenModel, picture: Path) -> None:
    pixels = decode_image(picture.read_bytes(), max_pixels=10_000_000)
    [outcome] = detector_for(model).detect([pixels])
    assert isinstance(outcome.found, Detections)
    expected = read_answer(model.answer_path(picture))
    assert expected.says_something
    comparison = compare(expected, outcome.found)
    assert comparison.within_tolerance, comparison
