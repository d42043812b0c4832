import json
from typing import Any

import numpy as np
import pycocotools.mask
import pytest

from handler.detections import Detections
from handler.errors import bad_request, internal
from handler.masks.paste import paste_mask
from handler.outputs.json_body import json_body, label_texts, prediction, relative_rows
from tests.fakes import detections_of

NAMES = ("person", "dog", "horse")
LIST_KEYS = ("labels", "boxes", "scores", "classes", "names", "masks", "prediction")

TWO = detections_of(
    size_hw=(80, 160),
    boxes=[(16.0, 8.25, 80.5, 72.0), (0.0, 0.0, 160.0, 80.0)],
    scores=[0.998, 0.75],
    classes=[2, 0],
)


def parsed(body: bytes) -> Any:
    return json.loads(body.decode("utf-8"))


@pytest.mark.parametrize("mask_side", [None, 28], ids=["boxes-only", "with-masks"])
def test_nothing_found_leaves_every_key_with_an_empty_list(mask_side: int | None) -> None:
    content = parsed(json_body([detections_of((40, 30), [], mask_side=mask_side)], NAMES))
    assert content == {
        **{key: [] for key in LIST_KEYS},
        "image": {"width": 30, "height": 40},
    }


def test_detections_are_written_as_the_contract_says() -> None:
    content = parsed(json_body([TWO], NAMES))
    masks = content.pop("masks")
    assert content == {
        "labels": ["horse 100%", "person 75%"],
        "boxes": [[16.0, 8.25, 80.5, 72.0], [0.0, 0.0, 160.0, 80.0]],
        "scores": [0.998, 0.75],
        "classes": [2, 0],
        "names": ["horse", "person"],
        "prediction": [[2, 0.998, 0.1, 0.103125, 0.503125, 0.9], [0, 0.75, 0, 0, 1, 1]],
        "image": {"width": 160, "height": 80},
    }
    assert [mask["size"] for mask in masks] == [[80, 160]] * 2


def test_masks_decode_to_the_pasted_masks() -> None:
    masks = parsed(json_body([TWO], NAMES))["masks"]
    assert TWO.masks is not None
    for mask, probabilities, box in zip(masks, TWO.masks, TWO.boxes_xyxy, strict=True):
        pasted = paste_mask(probabilities, box, TWO.size_hw).full(TWO.size_hw)
        assert pasted.any()
        np.testing.assert_array_equal(pycocotools.mask.decode(mask), pasted)


def test_a_model_without_masks_gives_an_empty_list_of_masks() -> None:
    content = prediction(detections_of((40, 30), [(1, 2, 3, 4)], mask_side=None), NAMES)
    assert content["masks"] == []
    assert content["boxes"] == [[1, 2, 3, 4]]


def test_prediction_rows_lie_within_0_and_1_in_pictures_of_odd_sizes() -> None:
    height, width = 333, 777
    boxes = [(0, 0, width, height), (776.3, 332.7, width, height), (0, 0, 0.01, 0.01)]
    rows = np.array(prediction(detections_of((height, width), boxes), NAMES)["prediction"])
    assert rows.shape == (3, 6)
    assert ((rows[:, 1:] >= 0) & (rows[:, 1:] <= 1)).all()
    assert (rows[:, 2:4] <= rows[:, 4:6]).all()
    np.testing.assert_array_equal(rows[0, 2:], [0, 0, 1, 1])


def test_relative_rows_divide_x_by_the_width_and_y_by_the_height() -> None:
    detections = detections_of((10, 40), [(4, 1, 20, 5)], scores=[0.5], classes=[1])
    np.testing.assert_allclose(relative_rows(detections), [[1, 0.5, 0.1, 0.1, 0.5, 0.5]])


def test_numbers_are_rounded_to_a_thousandth_of_a_pixel_and_a_millionth_of_a_score() -> None:
    box = (0.123456789, 1.98765432, 10.1, 20.2)
    text = json_body([detections_of((30, 30), [box], scores=[0.123456789])], NAMES).decode()
    assert '"boxes":[[0.123,1.988,10.1,20.2]]' in text
    assert '"scores":[0.123457]' in text


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        pytest.param(1.0, "dog 100%", id="certain"),
        pytest.param(0.996, "dog 100%", id="rounded-up"),
        pytest.param(0.994, "dog 99%", id="rounded-down"),
        pytest.param(0.051, "dog 5%", id="low"),
        pytest.param(0.001, "dog 0%", id="almost-nothing"),
    ],
)
def test_labels_hold_the_name_and_the_score_in_percent(score: float, expected: str) -> None:
    assert label_texts(detections_of((9, 9), [(1, 1, 5, 5)], [score], [1]), NAMES) == [expected]


def test_names_are_written_as_utf_8() -> None:
    body = json_body([detections_of((9, 9), [(1, 1, 5, 5)])], ["grüner Ball"])
    assert "grüner Ball 90%".encode() in body


def test_several_pictures_come_as_predictions_with_errors_in_their_places() -> None:
    nothing = detections_of((40, 30), [])
    error = bad_request("broken", "mend it")
    content = parsed(json_body([TWO, error, nothing, internal()], NAMES))
    assert list(content) == ["predictions"]
    assert content["predictions"] == [
        parsed(json_body([TWO], NAMES)),
        {"error": {"code": "bad_request", "message": "broken", "hint": "mend it"}},
        parsed(json_body([nothing], NAMES)),
        internal().body(),
    ]


def test_detections_of_more_classes_than_names_are_not_answered_wrongly() -> None:
    unknown: Detections = detections_of((9, 9), [(1, 1, 5, 5)], classes=[3])
    with pytest.raises(IndexError):
        json_body([unknown], NAMES)
