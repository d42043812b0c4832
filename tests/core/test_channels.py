"""Networks of one and of four channels get the channels that a client sends."""

import io
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from d2serve.detections import Detections
from d2serve.detector.native import NativeDetector
from d2serve.messages import HttpRequest, Part
from d2serve.metadata import ModelMetadata
from d2serve.serving.loading import warm_up
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.requests import HttpResponse
from d2serve.settings import Settings
from tests.bodies import image_bytes, npy_bytes
from tests.goldens.cases import SAMPLES, VARIANTS

Pixels = npt.NDArray[np.uint8]


@cache
def detector_of(name: str) -> NativeDetector:
    [model] = [variant for variant in VARIANTS if variant.config.stem == name]
    return NativeDetector(model.build(), torch.device("cpu"), Settings())


def pixels_of(channels: int) -> Pixels:
    rgb = np.array(Image.open(SAMPLES[1]).convert("RGB"))
    fourth = 255 - rgb.max(axis=2, keepdims=True) // 2
    return rgb if channels == 3 else np.concatenate((rgb, fourth), axis=2)


@pytest.fixture
def pipelines() -> Iterator[list[Pipeline]]:
    opened: list[Pipeline] = []
    yield opened
    for pipeline in opened:
        pipeline.close()


def pipeline_for(name: str, opened: list[Pipeline]) -> Pipeline:
    detector = detector_of(name)
    metadata = ModelMetadata("m", ("a", "b", "c", "d", "e"), 0.0, 100, channels=detector.channels)
    opened.append(Pipeline(detector, metadata, Settings(), threads=1))
    return opened[-1]


def send(
    pipeline: Pipeline,
    content_type: str,
    body: bytes,
    query: Mapping[str, str] | None = None,
    accept: str = "application/json",
) -> HttpResponse:
    headers = {"accept": accept}
    request = HttpRequest(headers, (Part(content_type, body),), query or {}, "r")
    [response] = pipeline.run_together([request])
    return response


def boxes_in(response: HttpResponse) -> Any:
    assert response.status == 200, response.body
    return json.loads(response.body)["boxes"]


def expected_boxes(name: str, pixels: Pixels) -> Any:
    [result] = detector_of(name).detect([pixels])
    assert isinstance(result.output, Detections)
    return result.output.boxes_xyxy.astype(np.float64).round(3).tolist()


def png(pixels: Pixels) -> bytes:
    return image_bytes(pixels, "PNG")


def jpeg(pixels: Pixels) -> bytes:
    return image_bytes(pixels, "JPEG")


@pytest.mark.parametrize("name", ["four_channels", "four_channels_bgr"])
def test_every_form_of_four_channels_is_the_same_image(
    name: str, pipelines: list[Pipeline]
) -> None:
    pipeline, pixels = pipeline_for(name, pipelines), pixels_of(4)
    expected = expected_boxes(name, pixels)
    assert expected
    assert expected != expected_boxes(name, np.dstack((pixels_of(3), pixels[:, :, 0])))
    bgr = np.ascontiguousarray(pixels[:, :, [2, 1, 0, 3]])
    tensor = {
        "name": "x",
        "shape": list(pixels.shape),
        "datatype": "UINT8",
        "data": pixels.tolist(),
    }
    for content_type, body, query in (
        ("application/x-npy", npy_bytes(pixels), {}),
        ("application/x-npy", npy_bytes(pixels.transpose(2, 0, 1)), {}),
        ("application/x-npy", npy_bytes(bgr), {"input_color": "bgr"}),
        ("application/x-npy", npy_bytes(pixels.astype(np.float64) / 255), {}),
        ("image/png", png(pixels), {}),
        ("application/json", json.dumps({"instances": [pixels.tolist()]}).encode(), {}),
        ("application/json", json.dumps({"inputs": [tensor]}).encode(), {}),
    ):
        response = send(pipeline, content_type, body, query)
        assert response.status == 200, response.body
        content = json.loads(response.body)
        boxes = (
            content["predictions"][0]["boxes"]
            if "predictions" in content
            else content["boxes"]
            if "boxes" in content
            else np.reshape(content["outputs"][0]["data"], (-1, 4)).tolist()
        )
        np.testing.assert_allclose(boxes, expected, atol=1e-3)


def test_alpha_that_is_missing_is_opaque(pipelines: list[Pipeline]) -> None:
    pipeline, rgb = pipeline_for("four_channels", pipelines), pixels_of(3)
    opaque = np.dstack((rgb, np.full(rgb.shape[:2], 255, np.uint8)))
    expected = expected_boxes("four_channels", opaque)
    assert boxes_in(send(pipeline, "image/png", png(rgb))) == expected
    assert boxes_in(send(pipeline, "application/x-npy", npy_bytes(rgb))) == expected


@pytest.mark.parametrize("encode", [jpeg, png, npy_bytes])
def test_a_fourth_channel_of_another_kind_must_be_sent(
    encode: Any, pipelines: list[Pipeline]
) -> None:
    response = send(pipeline_for("four_channels_bgr", pipelines), "", encode(pixels_of(3)))
    assert response.status == 422
    error = json.loads(response.body)["error"]
    assert error["message"] == "the image has 3 channels, but the model takes 4"
    assert "HxWx4" in error["hint"]


def test_a_drawn_image_has_no_fourth_channel(pipelines: list[Pipeline]) -> None:
    pipeline, pixels = pipeline_for("four_channels", pipelines), pixels_of(4)
    query = {"score_threshold": "1"}  # nothing is drawn
    response = send(pipeline, "", npy_bytes(pixels), query, accept="image/png")
    assert response.status == 200, response.body
    np.testing.assert_array_equal(Image.open(io.BytesIO(response.body)), pixels[:, :, :3])


@pytest.mark.parametrize("name", ["grey", "grey_c4"])
def test_every_form_of_a_grey_image_is_the_same_image(name: str, pipelines: list[Pipeline]) -> None:
    pipeline, rgb = pipeline_for(name, pipelines), pixels_of(3)
    grey = np.array(Image.fromarray(rgb).convert("L"))
    expected = expected_boxes(name, rgb)
    assert expected
    for body in (
        npy_bytes(grey),
        npy_bytes(grey[:, :, None]),
        npy_bytes(grey[None]),
        png(grey),
        png(rgb),
        npy_bytes(rgb),
    ):
        assert boxes_in(send(pipeline, "", body)) == expected
    assert boxes_in(send(pipeline, "", jpeg(grey)))


def test_a_network_of_three_channels_drops_the_fourth(pipelines: list[Pipeline]) -> None:
    pipeline = pipeline_for("anchors_flat", pipelines)
    expected = expected_boxes("anchors_flat", pixels_of(3))
    for body in (npy_bytes(pixels_of(4)), png(pixels_of(4))):
        assert boxes_in(send(pipeline, "", body)) == expected


@pytest.mark.parametrize("name", ["grey", "four_channels", "four_channels_bgr"])
def test_the_warm_up_sends_images_with_the_networks_channels(
    name: str, pipelines: list[Pipeline], caplog: pytest.LogCaptureFixture
) -> None:
    detector_of(name).warm_up()
    warm_up(pipeline_for(name, pipelines), [(64, 48)], [1])
    assert not caplog.records
