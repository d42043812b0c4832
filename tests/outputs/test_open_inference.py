"""Responses of the Open Inference Protocol, in JSON and in binary."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from d2serve.messages import BINARY_HEADER, OUTPUT_NAMES, ResponseEnvelope, Style
from d2serve.outputs.accept import JSON
from d2serve.outputs.open_inference import BINARY, open_inference_response
from d2serve.outputs.result import segmentations
from d2serve.outputs.segment_maps import segment_maps
from d2serve.outputs.tensors import output_tensors
from tests.fakes import detections_of
from tests.outputs.results import (
    BROKEN,
    NO_DETECTIONS,
    TWO,
    TWO_OF_ALL,
    TWO_WITHOUT_MASKS,
    parsed,
    result_of,
)

V2 = ResponseEnvelope(Style.OPEN_INFERENCE)
DATATYPES = {
    "boxes": "FP32",
    "scores": "FP32",
    "classes": "INT64",
    "masks": "BYTES",
    "keypoints": "FP32",
    "densepose": "BYTES",
    "panoptic": "BYTES",
    "semantic": "BYTES",
    "image_ids": "INT64",
    "mask_scores": "FP32",
}
OF_ONE_IMAGE = [name for name in OUTPUT_NAMES if name != "image_ids"]


def response(*results: Any, envelope: ResponseEnvelope = V2) -> dict[str, Any]:
    """The parsed response, after checks that apply to all responses."""
    rendered = open_inference_response(results, envelope, "animals")
    assert (rendered.media_type, rendered.headers) == (JSON, {})
    content: dict[str, Any] = parsed(rendered.body)
    assert content["model_name"] == "animals"
    for tensor in content["outputs"]:
        assert set(tensor) == {"name", "shape", "datatype", "data"}
        assert tensor["datatype"] == DATATYPES[tensor["name"]]
        assert math.prod(tensor["shape"]) == len(tensor["data"])
    return content


def outputs_of(content: dict[str, Any]) -> dict[str, Any]:
    return {tensor["name"]: tensor for tensor in content["outputs"]}


def test_no_detections_give_empty_tensors() -> None:
    content = response(result_of(NO_DETECTIONS))
    shapes = {name: tensor["shape"] for name, tensor in outputs_of(content).items()}
    assert shapes == {"boxes": [0, 4], "scores": [0], "classes": [0], "masks": [0]}
    assert list(content) == ["model_name", "outputs"]


def test_detections_are_flat_tensors() -> None:
    outputs = outputs_of(response(result_of(TWO)))
    assert list(outputs) == ["boxes", "scores", "classes", "masks"]
    assert outputs["boxes"]["shape"] == [2, 4]
    assert outputs["boxes"]["data"] == [16.0, 8.25, 80.5, 72.0, 0.0, 0.0, 160.0, 80.0]
    assert outputs["scores"]["data"] == [0.998, 0.75]
    assert outputs["classes"]["data"] == [2, 0]


@pytest.mark.parametrize("mask_encoding", ["rle", "polygon"])
def test_masks_are_json_strings(mask_encoding: str) -> None:
    result = result_of(TWO, mask_encoding=mask_encoding)
    texts = outputs_of(response(result))["masks"]["data"]
    assert [json.loads(text) for text in texts] == segmentations(TWO, mask_encoding)


def test_model_without_masks_has_no_masks_tensor() -> None:
    assert list(outputs_of(response(result_of(TWO_WITHOUT_MASKS)))) == [
        "boxes",
        "scores",
        "classes",
    ]


@pytest.mark.parametrize(
    "request_id",
    [
        pytest.param("", id="empty"),
        pytest.param("42", id="a-number"),
        pytest.param('ü"\\', id="letters"),
        pytest.param("\ud800", id="half-of-a-surrogate-pair"),
    ],
)
def test_request_id_is_returned(request_id: str) -> None:
    content = response(
        result_of(TWO), envelope=ResponseEnvelope(Style.OPEN_INFERENCE, id=request_id)
    )
    assert content["id"] == request_id


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param((), OF_ONE_IMAGE, id="all"),
        pytest.param(("scores",), ["scores"], id="one"),
        pytest.param(("masks", "boxes"), ["boxes", "masks"], id="two"),
        pytest.param(("semantic",), ["semantic"], id="a-map"),
        pytest.param(("image_ids",), ["image_ids"], id="the-position-of-a-single-image"),
        pytest.param(OUTPUT_NAMES, list(OUTPUT_NAMES), id="every-one-by-name"),
    ],
)
def test_only_requested_outputs_are_returned(names: tuple[str, ...], expected: list[str]) -> None:
    envelope = ResponseEnvelope(Style.OPEN_INFERENCE, outputs=names)
    assert list(outputs_of(response(result_of(TWO_OF_ALL), envelope=envelope))) == expected


def test_detections_of_several_images_are_concatenated() -> None:
    three = detections_of((9, 9), [(1, 1, 5, 5)] * 3, classes=[1, 1, 0])
    results = [result_of(TWO), result_of(NO_DETECTIONS, position=1), result_of(three, position=2)]
    outputs = outputs_of(response(*results))
    assert list(outputs) == ["boxes", "scores", "classes", "masks", "image_ids"]
    assert outputs["image_ids"]["data"] == [0, 0, 2, 2, 2]
    assert outputs["classes"]["data"] == [2, 0, 1, 1, 0]
    boxes = np.reshape(outputs["boxes"]["data"], outputs["boxes"]["shape"])
    np.testing.assert_array_equal(boxes, np.concatenate((TWO.boxes_xyxy, three.boxes_xyxy)))
    masks = [json.loads(text) for text in outputs["masks"]["data"]]
    assert masks == segmentations(TWO, "rle") + segmentations(three, "rle")


def test_error_has_the_position_of_its_image() -> None:
    content = response(BROKEN, result_of(TWO, position=1))
    assert content["parameters"] == {"errors": [{"image_id": 0, **BROKEN.body()}]}
    assert outputs_of(content)["image_ids"]["data"] == [1, 1]


def test_only_errors_give_empty_tensors() -> None:
    content = response(BROKEN, BROKEN)
    assert [error["image_id"] for error in content["parameters"]["errors"]] == [0, 1]
    assert outputs_of(content)["boxes"]["shape"] == [0, 4]


def test_keypoints_of_several_images_are_one_tensor() -> None:
    nothing = replace(NO_DETECTIONS, keypoints=np.zeros((0, 2, 3), dtype=np.float32))
    results = [result_of(TWO_OF_ALL), result_of(nothing, position=1), result_of(TWO_OF_ALL, 2)]
    keypoints = outputs_of(response(*results))["keypoints"]
    assert keypoints["shape"] == [4, 2, 3]
    assert keypoints["data"][:6] == [20.123, 10.0, 0.912346, 79.5, 70.25, 0.04]
    assert keypoints["data"][:12] == keypoints["data"][12:]


def test_keypoints_of_no_detections_keep_their_shape() -> None:
    nothing = replace(NO_DETECTIONS, keypoints=np.zeros((0, 17, 3), dtype=np.float32))
    assert outputs_of(response(result_of(nothing)))["keypoints"]["shape"] == [0, 17, 3]


def test_mask_scores_are_rounded_as_scores() -> None:
    found = replace(TWO_OF_ALL, mask_scores=np.array([0.87654321, -0.25], np.float32))
    assert outputs_of(response(result_of(found)))["mask_scores"]["data"] == [0.876543, -0.25]


@pytest.mark.parametrize("name", ["panoptic", "semantic"])
def test_maps_are_json_strings_of_the_valid_images(name: str) -> None:
    results = [result_of(TWO_OF_ALL), BROKEN, result_of(TWO_OF_ALL, position=2)]
    texts = outputs_of(response(*results))[name]["data"]
    expected = segment_maps(result_of(TWO_OF_ALL))[name]
    assert [json.loads(text) for text in texts] == [expected, expected]


def binary_response(
    *results: Any, binary: Sequence[str] = OUTPUT_NAMES, outputs: tuple[str, ...] = ()
) -> tuple[dict[str, Any], bytes]:
    """The JSON and the bytes after it."""
    envelope = ResponseEnvelope(
        Style.OPEN_INFERENCE, "42", outputs=outputs, binary_outputs=frozenset(binary)
    )
    rendered = open_inference_response(results, envelope, "animals")
    assert rendered.media_type == BINARY
    assert list(rendered.headers) == [BINARY_HEADER]
    size = int(rendered.headers[BINARY_HEADER])
    return parsed(rendered.body[:size]), rendered.body[size:]


def test_binary_outputs_follow_the_json_in_order() -> None:
    content, raw = binary_response(result_of(TWO_OF_ALL))
    assert (content["model_name"], content["id"]) == ("animals", "42")
    names = [tensor["name"] for tensor in content["outputs"]]
    assert names == OF_ONE_IMAGE
    position = 0
    for tensor, typed in zip(
        content["outputs"], output_tensors([result_of(TWO_OF_ALL)], names), strict=True
    ):
        assert set(tensor) == {"name", "shape", "datatype", "parameters"}
        assert tensor["shape"] == list(typed.shape)
        size = tensor["parameters"]["binary_data_size"]
        assert raw[position : position + size] == typed.raw()
        position += size
    assert position == len(raw)


def test_binary_and_json_outputs_are_mixed() -> None:
    content, raw = binary_response(
        result_of(TWO), binary=["scores"], outputs=("scores", "classes", "boxes")
    )
    outputs = outputs_of(content)
    assert list(outputs) == ["boxes", "scores", "classes"]
    assert outputs["boxes"]["data"][:2] == [16.0, 8.25]
    assert outputs["classes"]["data"] == [2, 0]
    assert "data" not in outputs["scores"]
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4"), TWO.scores)


def test_no_detections_in_binary_are_empty_tensors() -> None:
    content, raw = binary_response(result_of(NO_DETECTIONS))
    sizes = [tensor["parameters"]["binary_data_size"] for tensor in content["outputs"]]
    assert sizes == [0, 0, 0, 0]
    assert raw == b""


def test_missing_binary_output_leaves_json() -> None:
    envelope = ResponseEnvelope(
        Style.OPEN_INFERENCE, outputs=("classes",), binary_outputs=frozenset({"keypoints"})
    )
    assert list(outputs_of(response(result_of(TWO), envelope=envelope))) == ["classes"]


def test_errors_are_in_the_json_of_a_binary_response() -> None:
    content, _ = binary_response(BROKEN, result_of(TWO, position=1))
    assert content["parameters"] == {"errors": [{"image_id": 0, **BROKEN.body()}]}
