"""Detections as typed tensors."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest

from d2serve.messages import OUTPUT_NAMES
from d2serve.outputs.open_inference_metadata import OUTPUTS
from d2serve.outputs.result import segmentations
from d2serve.outputs.tensors import OutputTensor, output_tensors
from tests.outputs.results import NO_DETECTIONS, TWO, TWO_OF_ALL, TWO_WITHOUT_MASKS, result_of

RESULTS = [result_of(TWO_OF_ALL), result_of(TWO_OF_ALL, position=2)]


def tensors_of(*names: str) -> dict[str, OutputTensor]:
    return {tensor.name: tensor for tensor in output_tensors(RESULTS, names or OUTPUT_NAMES)}


def test_tensors_have_their_declared_datatypes_and_shapes() -> None:
    tensors = tensors_of()
    assert list(tensors) == list(OUTPUT_NAMES)
    for declared in OUTPUTS:
        tensor = tensors[declared.name]
        assert tensor.datatype == declared.datatype
        assert len(tensor.shape) == len(declared.shape)
        sides = zip(tensor.shape, declared.shape, strict=True)
        assert all(expected in (-1, side) for side, expected in sides)


def test_values_are_those_of_the_detections() -> None:
    tensors = tensors_of()
    twice = {
        "boxes": TWO_OF_ALL.boxes_xyxy,
        "scores": TWO_OF_ALL.scores,
        "classes": TWO_OF_ALL.classes,
        "keypoints": TWO_OF_ALL.keypoints,
        "mask_scores": TWO_OF_ALL.mask_scores,
    }
    for name, values in twice.items():
        assert values is not None
        np.testing.assert_array_equal(tensors[name].values, np.concatenate([values, values]))
    np.testing.assert_array_equal(tensors["image_ids"].values, [0, 0, 2, 2])
    masks = [json.loads(element) for element in tensors["masks"].values]
    assert masks == segmentations(TWO_OF_ALL, "rle") * 2


@pytest.mark.parametrize("name", OUTPUT_NAMES)
def test_raw_numbers_are_little_endian_and_raw_elements_follow_their_length(name: str) -> None:
    tensor = tensors_of(name)[name]
    raw = tensor.raw()
    if not isinstance(tensor.values, list):
        dtype = {"FP32": "<f4", "INT64": "<i8"}[tensor.datatype]
        np.testing.assert_array_equal(
            np.frombuffer(raw, dtype).reshape(tensor.shape), tensor.values
        )
        return
    for element in tensor.values:
        assert raw[: 4 + len(element)] == struct.pack("<I", len(element)) + element
        raw = raw[4 + len(element) :]
    assert raw == b""


def test_big_endian_arrays_are_converted() -> None:
    tensor = OutputTensor("scores", "FP32", (1,), np.array([1], ">f4"))
    assert tensor.raw() == b"\0\0\x80\x3f"


def test_absent_outputs_are_left_out() -> None:
    tensors = output_tensors([result_of(TWO_WITHOUT_MASKS)], OUTPUT_NAMES)
    assert [tensor.name for tensor in tensors] == ["boxes", "scores", "classes", "image_ids"]


def test_no_results_give_empty_tensors() -> None:
    shapes = {tensor.name: tensor.shape for tensor in output_tensors([], OUTPUT_NAMES)}
    assert shapes == {"boxes": (0, 4), "scores": (0,), "classes": (0,), "image_ids": (0,)}


def test_keypoints_of_no_detections_keep_their_shape() -> None:
    nothing = replace(NO_DETECTIONS, keypoints=np.zeros((0, 17, 3), np.float32))
    [keypoints] = output_tensors([result_of(nothing)], ["keypoints"])
    assert keypoints.shape == (0, 17, 3)
    assert keypoints.raw() == b""


def test_outputs_that_are_not_requested_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr("d2serve.outputs.tensors.segment_maps", fail)
    monkeypatch.setattr("d2serve.outputs.tensors.segmentations", fail)
    assert list(tensors_of("boxes", "keypoints")) == ["boxes", "keypoints"]
    assert output_tensors([result_of(TWO)], ["scores"])[0].name == "scores"
