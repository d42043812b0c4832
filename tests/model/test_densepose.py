"""DensePose networks reproduce the stored results of the project.

The files in answers/densepose are results of `densepose` on Detectron2, with maps by its
`ToChartResultConverter` and `quantize_densepose_chart_result`.
"""

import base64
import json
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import pytest
import torch

from d2serve.building.checkpoint_loading import load_from_checkpoint
from d2serve.building.config import load_config
from d2serve.detections import Detections
from d2serve.detector.native import NativeDetector
from d2serve.masks.densepose import IUV
from d2serve.model.densepose_head import DensePoseROIHeads
from d2serve.model.meta_arch import build_network
from d2serve.settings import Settings
from tests.goldens.cases import CONFIGS, RESULTS, SAMPLES, GoldenModel
from tests.goldens.comparison import compare, pairs
from tests.goldens.results import read_result

NAMES = ("decoder", "deep_lab")
MIN_AGREEMENT = 0.999


def model_of(name: str) -> GoldenModel:
    return GoldenModel(f"densepose/{name}", CONFIGS / f"densepose/{name}.yaml", None, (SAMPLES[1],))


@lru_cache(maxsize=1)
def found_by(name: str, precision: str) -> Detections:
    model = model_of(name)
    detector = NativeDetector(model.build(), torch.device("cpu"), Settings(precision=precision))
    [result] = detector.detect([model.pixels(SAMPLES[1])])
    assert isinstance(result.output, Detections)
    return result.output


def stored_maps(name: str) -> list[IUV]:
    content = json.loads((RESULTS / f"densepose/{name}.json").read_text())
    encoded = (np.frombuffer(base64.b64decode(png), np.uint8) for png in content["iuv_pngs"])
    images = (np.asarray(cv2.imdecode(png, cv2.IMREAD_COLOR), np.uint8) for png in encoded)
    return [image[:, :, ::-1].transpose(2, 0, 1) for image in images]


@pytest.mark.parametrize("name", NAMES)
def test_surfaces_equal_those_of_the_project(name: str) -> None:
    found = found_by(name, "fp32")
    expected = read_result(RESULTS / f"densepose/{name}.json")
    comparison = compare(expected, replace(found, masks=None))
    assert comparison.within_tolerance, comparison
    maps, stored = list(found.surface_maps()), stored_maps(name)
    for theirs, ours in pairs(expected, found):
        iuv, reference = maps[ours].iuv, stored[theirs]
        assert iuv.shape == reference.shape
        same = iuv[0] == reference[0]
        assert same.mean() >= MIN_AGREEMENT
        assert len(np.unique(iuv[0])) > 3
        assert np.abs(iuv.astype(int) - reference)[:, same].max() <= 1


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
