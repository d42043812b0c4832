import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.load.requests import MARK
from bench.soak.expected import Read
from bench.soak.found import (
    TO_ANSWER,
    TO_GOLDEN,
    Found,
    Size,
    difference,
    read_clarify,
    read_coco,
    read_default,
    read_golden,
    read_npy,
    read_tensors,
)
from tests.goldens.cases import SAMPLES, TRAINED

SIZE_WH = (640, 480)
GOLDENS = [read_golden(TRAINED.answer_path(picture)) for picture in SAMPLES]
GOLDEN = GOLDENS[0]


def lists(found: Found) -> tuple[list[Any], list[float], list[int], list[Any]]:
    return (
        found.boxes_xyxy.tolist(),
        found.scores.tolist(),
        found.classes.tolist(),
        list(found.masks or []),
    )


def rows(found: Found, size_wh: Size) -> list[list[float]]:
    boxes, scores, classes, _ = lists(found)
    relative = (np.array(boxes).reshape(-1, 4) / (size_wh * 2)).tolist()
    return [[a, b, *c] for a, b, c in zip(classes, scores, relative, strict=True)]


def as_default(found: Found, size_wh: Size = SIZE_WH) -> bytes:
    boxes, scores, classes, masks = lists(found)
    image = {"width": size_wh[0], "height": size_wh[1]}
    content = {"boxes": boxes, "scores": scores, "classes": classes, "masks": masks, "image": image}
    return json.dumps(content).encode()


def as_coco(found: Found, _: Size) -> bytes:
    content = [
        {
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": score,
            "category_id": index,
            "segmentation": mask,
        }
        for box, score, index, mask in zip(*lists(found), strict=True)
    ]
    return json.dumps(content).encode()


def as_clarify(found: Found, size_wh: Size) -> bytes:
    return json.dumps(rows(found, size_wh)).encode()


def as_npy(found: Found, size_wh: Size) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(rows(found, size_wh), dtype=np.float32).reshape(-1, 6))
    return file.getvalue()


def as_tensors(found: Found, _: Size) -> bytes:
    boxes, scores, classes, masks = lists(found)
    data = {
        "boxes": [side for box in boxes for side in box],
        "scores": scores,
        "classes": classes,
        "masks": [json.dumps(mask) for mask in masks],
    }
    outputs = [{"name": name, "data": values} for name, values in data.items()]
    return json.dumps({"id": MARK.decode(), "outputs": outputs}).encode()


FORMS: dict[str, tuple[Callable[[Found, Size], bytes], Read]] = {
    "json": (as_default, read_default),
    "coco": (as_coco, read_coco),
    "clarify": (as_clarify, read_clarify),
    "npy": (as_npy, read_npy),
    "tensors": (as_tensors, read_tensors),
}
NOTHING = Found.of([], [], [], [])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_as_what_was_written(form: str) -> None:
    write, read = FORMS[form]
    for golden in GOLDENS:
        found = read(write(golden, SIZE_WH), SIZE_WH)
        assert difference(golden, found, TO_ANSWER) == ""
        assert (found.masks is None) == (form in ("clarify", "npy"))
    assert difference(NOTHING, read(write(NOTHING, SIZE_WH), SIZE_WH), TO_ANSWER) == ""


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_to_another_picture_is_told(form: str) -> None:
    write, read = FORMS[form]
    for one in GOLDENS:
        for other in GOLDENS:
            assert (difference(one, read(write(other, SIZE_WH), SIZE_WH), TO_GOLDEN) == "") == (
                one is other
            )


def test_an_answer_for_a_picture_of_another_size_is_none() -> None:
    with pytest.raises(ValueError, match="640"):
        read_default(as_default(GOLDEN), (641, 480))


def moved(found: Found, **changed: Any) -> Found:
    return replace(found, **changed)


def test_the_order_is_free_and_noise_allowed() -> None:
    masks = list(GOLDEN.masks or [])
    turned = Found(
        GOLDEN.boxes_xyxy[::-1] + 0.04, GOLDEN.scores[::-1], GOLDEN.classes[::-1], masks[::-1]
    )
    assert difference(GOLDEN, turned, TO_GOLDEN) == ""
    assert difference(GOLDEN, turned, TO_ANSWER) == "a box is 0.040 px off"


def one_less(found: Found) -> Found:
    boxes, scores, classes, masks = lists(found)
    return Found.of(boxes[1:], scores[1:], classes[1:], masks[1:])


def one_more(values: Any, by: float) -> Any:
    changed = values.copy()
    changed[0] += by
    return changed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (one_less, "instances in place of"),
        (lambda f: moved(f, classes=one_more(f.classes, 1)), "another class or place"),
        (lambda f: moved(f, boxes_xyxy=one_more(f.boxes_xyxy, 5)), "another class or place"),
        (lambda f: moved(f, boxes_xyxy=one_more(f.boxes_xyxy, 0.06)), "a box is 0.060 px off"),
        (lambda f: moved(f, scores=one_more(f.scores, -0.002)), "a score is 0.00200 off"),
        (lambda f: moved(f, masks=[f.masks[1], *f.masks[1:]]), "a mask has an IoU of"),
        (
            lambda f: moved(f, masks=[{"size": [9, 9], "counts": "a"}, *f.masks[1:]]),
            "a mask has an IoU of 0.000",
        ),
    ],
)
def test_what_differs_is_named(changed: Callable[[Found], Found], said: str) -> None:
    assert said in difference(GOLDEN, changed(GOLDEN), TO_GOLDEN)


def test_goldens_are_read_with_their_masks() -> None:
    for golden in GOLDENS:
        assert len(golden.scores) == len(golden.masks or []) > 0
