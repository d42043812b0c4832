"""DensePose networks reproduce the stored results of the project."""

from functools import lru_cache

import numpy as np
import pytest
import torch

from d2serve.building.checkpoint_loading import load_from_checkpoint
from d2serve.building.config import load_config
from d2serve.detections import Detections
from d2serve.detector.native import NativeDetector
from d2serve.model.densepose_head import DensePoseROIHeads
from d2serve.model.meta_arch import build_network
from d2serve.settings import Settings
from tests.goldens.cases import CONFIGS, DENSEPOSE, RESULTS, SAMPLES, GoldenModel
from tests.goldens.comparison import MIN_AGREEMENT, compare
from tests.goldens.results import read_result
from tests.goldens.surfaces import assert_surfaces_equal, read_surfaces

NAMES = ("decoder", "deep_lab")


def model_of(name: str) -> GoldenModel:
    return next(golden for golden in DENSEPOSE if golden.name == f"densepose/{name}")


@lru_cache(maxsize=1)
def found_by(name: str, precision: str) -> Detections:
    model = model_of(name)
    detector = NativeDetector(model.build(), torch.device("cpu"), Settings(precision=precision))
    [result] = detector.detect([model.pixels(SAMPLES[1])])
    assert isinstance(result.output, Detections)
    return result.output


@pytest.mark.parametrize("name", NAMES)
def test_surfaces_equal_those_of_the_project(name: str) -> None:
    found, stored = found_by(name, "fp32"), RESULTS / f"densepose/{name}.json"
    expected = read_result(stored)
    comparison = compare(expected, found.without_masks())
    assert comparison.within_tolerance, comparison
    assert_surfaces_equal(found, expected, read_surfaces(stored))


def test_half_precision_finds_similar_surfaces() -> None:
    half, single = found_by("deep_lab", "bf16"), found_by("deep_lab", "fp32")
    image = [np.asarray(found.surface_image()[0]) for found in (half, single)]
    same = image[0][0] == image[1][0]
    assert same.mean() > 0.95
    assert np.abs(image[0].astype(int) - image[1])[:, same].mean() < 1


def test_images_of_a_batch_have_their_own_surfaces() -> None:
    model = model_of("decoder")
    network = model.build()
    detector = NativeDetector(network, torch.device("cpu"), Settings())
    pixels = model.pixels(SAMPLES[1])
    empty = np.zeros((64, 640, 3), np.uint8)
    first, nothing = (result.output for result in detector.detect([pixels, empty]))
    assert isinstance(first, Detections)
    assert isinstance(nothing, Detections)
    for ours, alone in zip(
        first.surface_maps(), found_by("decoder", "fp32").surface_maps(), strict=True
    ):
        assert ours.box_xywh == alone.box_xywh
        assert (ours.iuv == alone.iuv).mean() > MIN_AGREEMENT
    assert len(list(nothing.surface_maps())) == len(nothing)


@pytest.mark.parametrize(("name", "channels"), [("decoder", 16), ("deep_lab", 32)])
def test_no_instances_have_no_surfaces(name: str, channels: int) -> None:
    heads = model_of(name).build().get_submodule("roi_heads")
    assert isinstance(heads, DensePoseROIHeads)
    hidden = heads.densepose_head(torch.zeros(0, channels, 14, 14))
    assert len(heads.densepose_predictor(hidden)) == 0


def test_weights_of_confidences_of_u_and_v_are_not_needed() -> None:
    model = build_network(load_config(CONFIGS / "densepose/decoder.yaml"))
    weights = {**model.state_dict()}
    prefix = "roi_heads.densepose_predictor"
    assert f"{prefix}.fine_segm_confidence_lowres.weight" in weights
    for name in ("sigma_2", "kappa_u", "kappa_v"):
        weights[f"{prefix}.{name}_lowres.weight"] = torch.zeros(16, 25, 4, 4)
        weights[f"{prefix}.{name}_lowres.bias"] = torch.zeros(25)
    load_from_checkpoint(model, weights)
