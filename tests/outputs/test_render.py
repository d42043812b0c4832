import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d2serve.detections import Detections
from d2serve.errors import RequestError, internal
from d2serve.messages import Style, Wrapping
from d2serve.outputs.accept import JPEG, JSON, JSON_LINES, NPY, NPZ, PNG
from d2serve.outputs.response import Answer, render
from d2serve.outputs.result import segmentations
from tests.bodies import noise
from tests.outputs.results import ALL, BROKEN, MODEL, NOTHING, TWO, TWO_OF_ALL, answer_of, parsed

PLENTY = 10_000_000
BEST = replace(ALL, score_threshold=0.9)
PLAIN, V1, V2 = Wrapping(), Wrapping(Style.INSTANCES), Wrapping(Style.OPEN_INFERENCE)


def body_of(*found: Detections | RequestError, **how: Any) -> bytes:
    return render(answer_of(*found, **how), MODEL, PLENTY)


def json_of(*found: Detections | RequestError, **how: Any) -> Any:
    return parsed(body_of(*found, **how))


@pytest.mark.parametrize("wrapping", [PLAIN, V1, V2], ids=["plain", "v1", "v2"])
@pytest.mark.parametrize("media_type", [JSON, JSON_LINES, JPEG, PNG, NPY, NPZ])
def test_the_only_pictures_error_is_the_requests(media_type: str, wrapping: Wrapping) -> None:
    with pytest.raises(RequestError) as raised:
        body_of(BROKEN, media_type=media_type, wrapping=wrapping)
    assert raised.value is BROKEN


def test_a_picture_whose_forward_failed_is_an_error_in_its_place() -> None:
    failed = internal()
    answer = Answer((noise(9, 9, 3),) * 2, (failed, NOTHING), ALL, JSON, PLAIN)
    first, second = parsed(render(answer, MODEL, PLENTY))["predictions"]
    assert first == failed.body()
    assert second["scores"] == []


@pytest.mark.parametrize(
    ("name", "of_one", "of_two"),
    [
        ("default", dict, dict),
        ("clarify", list, list),
        ("clarify-scores", list, list),
        ("coco", list, list),
        ("jumpstart", dict, dict),
    ],
)
def test_the_format_is_the_one_asked_for(name: str, of_one: type, of_two: type) -> None:
    options = replace(ALL, format=name)
    assert isinstance(json_of(TWO, options=options), of_one)
    assert isinstance(json_of(TWO, NOTHING, options=options), of_two)
    assert len(json_of(TWO, NOTHING, options=options, wrapping=V1)["predictions"]) == 2


def test_coco_results_of_several_pictures_are_one_list_that_tells_them_apart() -> None:
    content = json_of(TWO, BROKEN, NOTHING, TWO, options=replace(ALL, format="coco"))
    assert [result["image_id"] for result in content] == [0, 0, 1, 3, 3]
    assert content[2]["error"]["code"] == "bad_request"


def test_coco_results_of_instances_are_a_list_each() -> None:
    content = json_of(TWO, BROKEN, options=replace(ALL, format="coco"), wrapping=V1)
    first, second = content["predictions"]
    assert [result["image_id"] for result in first] == [0, 0]
    assert second == BROKEN.body()


@pytest.mark.parametrize("wrapping", [PLAIN, V1, V2], ids=["plain", "v1", "v2"])
def test_lines_do_not_depend_on_the_wrapping(wrapping: Wrapping) -> None:
    body = body_of(TWO, BROKEN, media_type=JSON_LINES, wrapping=wrapping)
    first, second = body.decode().splitlines()
    assert json.loads(first)["names"] == ["horse", "person"]
    assert json.loads(second) == BROKEN.body()


def test_open_inference_holds_the_models_name_whatever_the_format() -> None:
    content = json_of(TWO, options=replace(ALL, format="clarify"), wrapping=V2)
    assert content["model_name"] == "animals"
    assert content["outputs"][1]["data"] == [0.998, 0.75]


@pytest.mark.parametrize("wrapping", [PLAIN, V1], ids=["plain", "v1"])
def test_json_holds_only_the_detections_that_the_options_let_through(wrapping: Wrapping) -> None:
    content = json_of(TWO, options=BEST, wrapping=wrapping)
    [prediction] = content.get("predictions", [content])
    assert prediction["names"] == ["horse"]
    assert len(prediction["masks"]) == 1


def test_open_inference_holds_only_the_detections_that_the_options_let_through() -> None:
    content = json_of(TWO, options=replace(BEST, masks="none"), wrapping=V2)
    assert [tensor["name"] for tensor in content["outputs"]] == ["boxes", "scores", "classes"]
    assert content["outputs"][1]["data"] == [0.998]


def test_arrays_hold_only_the_detections_that_the_options_let_through() -> None:
    rows = np.load(io.BytesIO(body_of(TWO, options=BEST, media_type=NPY)))
    assert rows[:, 0].tolist() == [2]
    arrays = np.load(io.BytesIO(body_of(TWO, options=BEST, media_type=NPZ)))
    assert arrays["masks"].shape == (1, 80, 160)


@pytest.mark.parametrize("wrapping", [PLAIN, V1], ids=["plain", "v1"])
def test_options_choose_among_instances_and_leave_maps_as_they_are(wrapping: Wrapping) -> None:
    options = replace(BEST, classes=frozenset({2}), masks="none")
    contents = [json_of(TWO_OF_ALL, options=each, wrapping=wrapping) for each in (options, ALL)]
    few, every = (content.get("predictions", [content])[0] for content in contents)
    assert few["keypoints"] == every["keypoints"][:1]
    for name in ("panoptic", "semantic"):
        assert few[name] == every[name]


@pytest.mark.parametrize("encoding", ["rle", "polygon"])
def test_masks_are_encoded_as_asked_for(encoding: str) -> None:
    content = json_of(TWO, options=replace(ALL, masks=encoding))
    assert content["masks"] == segmentations(TWO, encoding)


@pytest.mark.parametrize(("media_type", "file_format"), [(JPEG, "JPEG"), (PNG, "PNG")])
def test_an_image_is_drawn(media_type: str, file_format: str) -> None:
    image = Image.open(io.BytesIO(body_of(TWO, media_type=media_type)))
    assert (image.format, image.size) == (file_format, (160, 80))


def test_an_image_without_detections_is_the_picture() -> None:
    options = replace(ALL, score_threshold=1.0)
    drawn = np.asarray(Image.open(io.BytesIO(body_of(TWO, options=options, media_type=PNG))))
    np.testing.assert_array_equal(drawn, noise(80, 160, 3))


def test_an_image_shows_no_masks_where_none_are_wanted() -> None:
    options = replace(BEST, masks="none")
    drawn = np.asarray(Image.open(io.BytesIO(body_of(TWO, options=options, media_type=PNG))))
    inside = (slice(40, 70), slice(20, 78))
    np.testing.assert_array_equal(drawn[inside], noise(80, 160, 3)[inside])


@pytest.mark.parametrize("media_type", [JSON, JSON_LINES, JPEG, PNG, NPY])
def test_a_body_may_have_as_many_bytes_as_allowed_and_not_one_more(media_type: str) -> None:
    answer = answer_of(TWO_OF_ALL, media_type=media_type)
    body = render(answer, MODEL, PLENTY)
    assert render(answer, MODEL, len(body)) == body
    with pytest.raises(RequestError, match=f"{len(body)} bytes") as raised:
        render(answer, MODEL, len(body) - 1)
    assert raised.value.status == 413


def test_an_npz_may_not_be_larger_unpacked_than_allowed() -> None:
    with pytest.raises(RequestError, match="25656 bytes; at most 25655") as raised:
        render(answer_of(TWO, media_type=NPZ), MODEL, 25_655)
    assert raised.value.status == 413


def test_names_are_written_as_utf_8() -> None:
    model = replace(MODEL, class_names=("a", "b", "grüner Ball"))
    assert "grüner Ball 100%".encode() in render(answer_of(TWO), model, PLENTY)
