"""Response bodies: envelopes, formats and limits."""

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d2serve.detections import Detections
from d2serve.errors import RequestError, internal
from d2serve.masks.runs import paste_runs
from d2serve.messages import BINARY_HEADER, ResponseEnvelope, Style
from d2serve.outputs.accept import JPEG, JSON, JSON_LINES, NPY, NPZ, PNG
from d2serve.outputs.formats import FORMATS, Format
from d2serve.outputs.response import ResponseContent, instances_body, lines_body, plain_body, render
from d2serve.outputs.result import Result, segmentations
from tests.bodies import noise
from tests.fakes import detections_of
from tests.outputs.results import (
    ALL,
    BROKEN,
    MODEL,
    NO_DETECTIONS,
    TWO,
    TWO_OF_ALL,
    content_of,
    parsed,
    result_of,
)

PLENTY = 10_000_000
BEST = replace(ALL, score_threshold=0.9)
PLAIN, V1, V2 = (
    ResponseEnvelope(),
    ResponseEnvelope(Style.INSTANCES),
    ResponseEnvelope(Style.OPEN_INFERENCE),
)


def body_of(*found: Detections | RequestError, **how: Any) -> bytes:
    return render(content_of(*found, **how), MODEL, PLENTY).body


def json_of(*found: Detections | RequestError, **how: Any) -> Any:
    return parsed(body_of(*found, **how))


@pytest.mark.parametrize("envelope", [PLAIN, V1, V2], ids=["plain", "v1", "v2"])
@pytest.mark.parametrize("media_type", [JSON, JSON_LINES, JPEG, PNG, NPY, NPZ])
def test_error_of_the_only_image_is_raised(media_type: str, envelope: ResponseEnvelope) -> None:
    with pytest.raises(RequestError) as raised:
        body_of(BROKEN, media_type=media_type, envelope=envelope)
    assert raised.value is BROKEN


def test_failed_forward_pass_is_an_error_in_its_place() -> None:
    failed = internal()
    content = ResponseContent((noise(9, 9, 3),) * 2, (failed, NO_DETECTIONS), ALL, JSON, PLAIN)
    first, second = parsed(render(content, MODEL, PLENTY).body)["predictions"]
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
        ("roboflow", dict, list),
    ],
)
def test_requested_format_is_used(name: str, of_one: type, of_two: type) -> None:
    options = replace(ALL, format=name)
    assert isinstance(json_of(TWO, options=options), of_one)
    assert isinstance(json_of(TWO, NO_DETECTIONS, options=options), of_two)
    assert len(json_of(TWO, NO_DETECTIONS, options=options, envelope=V1)["predictions"]) == 2


def test_coco_results_of_several_images_are_one_list() -> None:
    content = json_of(TWO, BROKEN, NO_DETECTIONS, TWO, options=replace(ALL, format="coco"))
    assert [result["image_id"] for result in content] == [0, 0, 1, 3, 3]
    assert content[2]["error"]["code"] == "bad_request"


def test_coco_results_of_instances_are_one_list_per_instance() -> None:
    content = json_of(TWO, BROKEN, options=replace(ALL, format="coco"), envelope=V1)
    first, second = content["predictions"]
    assert [result["image_id"] for result in first] == [0, 0]
    assert second == BROKEN.body()


@pytest.mark.parametrize("envelope", [PLAIN, V1, V2], ids=["plain", "v1", "v2"])
def test_lines_do_not_depend_on_the_envelope(envelope: ResponseEnvelope) -> None:
    body = body_of(TWO, BROKEN, media_type=JSON_LINES, envelope=envelope)
    first, second = body.decode().splitlines()
    assert json.loads(first)["names"] == ["horse", "person"]
    assert json.loads(second) == BROKEN.body()


def test_open_inference_ignores_the_format() -> None:
    content = json_of(TWO, options=replace(ALL, format="clarify"), envelope=V2)
    assert content["model_name"] == "animals"
    assert content["outputs"][1]["data"] == [0.998, 0.75]


@pytest.mark.parametrize("masks", ["rle", "polygon", "none"])
@pytest.mark.parametrize("name", FORMATS)
def test_masks_as_pixels_are_encoded_like_masks_of_boxes(name: str, masks: str) -> None:
    options = replace(ALL, format=name, masks=masks)
    for envelope in (PLAIN, V2):
        how = {"options": options, "envelope": envelope}
        bodies = [body_of(found, **how) for found in (TWO, with_pixels(TWO))]
        # Random in the format `roboflow`.
        one, other = (re.sub(rb'"detection_id":"[^"]*"', b"", body) for body in bodies)
        assert one == other


@pytest.mark.parametrize("media_type", [JSON_LINES, PNG, NPY, NPZ])
def test_masks_as_pixels_are_in_all_media_types(media_type: str) -> None:
    best = {"media_type": media_type, "options": BEST}
    assert body_of(with_pixels(TWO), **best) == body_of(TWO, **best)
    without = {"media_type": media_type, "options": replace(BEST, masks="none")}
    assert (body_of(TWO, **without) == body_of(TWO, **best)) == (media_type == NPY)


def with_pixels(found: Detections) -> Detections:
    """The same masks as pixels, as networks with full-image masks return them."""
    assert found.masks is not None
    runs = paste_runs(found.masks, found.boxes_xyxy, found.size_hw)
    return replace(found, masks=None, mask_runs=runs)


@pytest.mark.parametrize("envelope", [PLAIN, V1], ids=["plain", "v1"])
def test_json_contains_only_matching_detections(
    envelope: ResponseEnvelope,
) -> None:
    content = json_of(TWO, options=BEST, envelope=envelope)
    [prediction] = content.get("predictions", [content])
    assert prediction["names"] == ["horse"]
    assert len(prediction["masks"]) == 1


def test_binary_open_inference_has_its_own_type_and_header() -> None:
    envelope = replace(V2, binary_outputs=frozenset({"scores"}))
    rendered = render(content_of(TWO, envelope=envelope), MODEL, PLENTY)
    assert rendered.media_type == "application/octet-stream"
    size = int(rendered.headers[BINARY_HEADER])
    assert np.frombuffer(rendered.body[size:], "<f4").tolist() == TWO.scores.tolist()


@pytest.mark.parametrize("media_type", [JSON, JSON_LINES, PNG, NPY])
def test_rendered_type_is_that_of_the_body(media_type: str) -> None:
    rendered = render(content_of(TWO, media_type=media_type), MODEL, PLENTY)
    assert (rendered.media_type, rendered.headers) == (media_type, {})


def test_open_inference_contains_only_matching_detections() -> None:
    content = json_of(TWO, options=replace(BEST, masks="none"), envelope=V2)
    assert [tensor["name"] for tensor in content["outputs"]] == ["boxes", "scores", "classes"]
    assert content["outputs"][1]["data"] == [0.998]


def test_arrays_contain_only_matching_detections() -> None:
    rows = np.load(io.BytesIO(body_of(TWO, options=BEST, media_type=NPY)))
    assert rows[:, 0].tolist() == [2]
    arrays = np.load(io.BytesIO(body_of(TWO, options=BEST, media_type=NPZ)))
    assert arrays["masks"].shape == (1, 80, 160)


@pytest.mark.parametrize("envelope", [PLAIN, V1], ids=["plain", "v1"])
def test_options_do_not_change_maps(
    envelope: ResponseEnvelope,
) -> None:
    options = replace(BEST, classes=frozenset({2}), masks="none")
    contents = [json_of(TWO_OF_ALL, options=each, envelope=envelope) for each in (options, ALL)]
    few, every = (content.get("predictions", [content])[0] for content in contents)
    assert few["keypoints"] == every["keypoints"][:1]
    for name in ("panoptic", "semantic"):
        assert few[name] == every[name]


@pytest.mark.parametrize("encoding", ["rle", "polygon"])
def test_requested_mask_encoding_is_used(encoding: str) -> None:
    content = json_of(TWO, options=replace(ALL, masks=encoding))
    assert content["masks"] == segmentations(TWO, encoding)


@pytest.mark.parametrize(("media_type", "file_format"), [(JPEG, "JPEG"), (PNG, "PNG")])
def test_overlay_is_rendered(media_type: str, file_format: str) -> None:
    image = Image.open(io.BytesIO(body_of(TWO, media_type=media_type)))
    assert (image.format, image.size) == (file_format, (160, 80))


def test_overlay_without_detections_equals_the_image() -> None:
    options = replace(ALL, score_threshold=1.0)
    drawn = np.asarray(Image.open(io.BytesIO(body_of(TWO, options=options, media_type=PNG))))
    np.testing.assert_array_equal(drawn, noise(80, 160, 3))


def test_overlay_without_requested_masks_has_none() -> None:
    options = replace(BEST, masks="none")
    drawn = np.asarray(Image.open(io.BytesIO(body_of(TWO, options=options, media_type=PNG))))
    inside = (slice(40, 70), slice(20, 78))
    np.testing.assert_array_equal(drawn[inside], noise(80, 160, 3)[inside])


@pytest.mark.parametrize("media_type", [JSON, JSON_LINES, JPEG, PNG, NPY])
def test_response_size_is_limited(media_type: str) -> None:
    content = content_of(TWO_OF_ALL, media_type=media_type)
    body = render(content, MODEL, PLENTY).body
    assert render(content, MODEL, len(body)).body == body
    with pytest.raises(RequestError, match=f"{len(body)} bytes") as raised:
        render(content, MODEL, len(body) - 1)
    assert raised.value.status == 413


def test_uncompressed_npz_size_is_limited() -> None:
    with pytest.raises(RequestError, match="25656 bytes, the limit is 25655") as raised:
        render(content_of(TWO, media_type=NPZ), MODEL, 25_655)
    assert raised.value.status == 413


def test_names_are_written_as_utf_8() -> None:
    model = replace(MODEL, class_names=("a", "b", "grüner Ball"))
    assert "grüner Ball 100%".encode() in render(content_of(TWO), model, PLENTY).body


ERROR = BROKEN.body()
# Entries of the formats are tested in test_formats.py.
OBJECTS = Format(lambda result: {"at": result.position}, lambda entries: {"joined": list(entries)})
LISTS = Format(lambda result: [result.position], lambda entries: ["joined", *entries])
FIRST, LAST = result_of(TWO), result_of(NO_DETECTIONS, position=2)

Body = Callable[[Sequence[Result | RequestError], Format], bytes]


@pytest.mark.parametrize(
    ("results", "of_objects", "of_lists"),
    [
        pytest.param([], {"joined": []}, ["joined"], id="no-images"),
        pytest.param([FIRST], {"at": 0}, [0], id="one"),
        pytest.param(
            [FIRST, BROKEN, LAST],
            {"joined": [{"at": 0}, ERROR, {"at": 2}]},
            ["joined", [0], ERROR, [2]],
            id="several",
        ),
        pytest.param(
            [BROKEN, BROKEN], {"joined": [ERROR, ERROR]}, ["joined", ERROR, ERROR], id="all-broken"
        ),
    ],
)
def test_plain_body_is_one_entry_or_joined_entries(
    results: list[Any], of_objects: Any, of_lists: Any
) -> None:
    assert parsed(plain_body(results, OBJECTS)) == of_objects
    assert parsed(plain_body(results, LISTS)) == of_lists


@pytest.mark.parametrize(
    ("results", "of_objects", "of_lists"),
    [
        pytest.param([], [], [], id="no-images"),
        pytest.param([FIRST], [{"at": 0}], [[0]], id="one"),
        pytest.param(
            [FIRST, BROKEN, LAST], [{"at": 0}, ERROR, {"at": 2}], [[0], ERROR, [2]], id="several"
        ),
    ],
)
def test_instances_body_always_has_predictions(
    results: list[Any], of_objects: Any, of_lists: Any
) -> None:
    assert parsed(instances_body(results, OBJECTS)) == {"predictions": of_objects}
    assert parsed(instances_body(results, LISTS)) == {"predictions": of_lists}


@pytest.mark.parametrize(
    ("results", "of_objects", "of_lists"),
    [
        pytest.param([], [], [], id="no-images"),
        pytest.param([FIRST], [{"at": 0}], [{"prediction": [0]}], id="one"),
        pytest.param(
            [FIRST, BROKEN, LAST],
            [{"at": 0}, ERROR, {"at": 2}],
            [{"prediction": [0]}, ERROR, {"prediction": [2]}],
            id="several",
        ),
    ],
)
def test_each_line_is_an_object(results: list[Any], of_objects: Any, of_lists: Any) -> None:
    assert lines_of(lines_body(results, OBJECTS)) == of_objects
    assert lines_of(lines_body(results, LISTS)) == of_lists


def lines_of(body: bytes) -> list[Any]:
    """Parse the lines, each ending with a line feed."""
    *lines, rest = body.decode("utf-8").split("\n")
    assert rest == ""
    return [json.loads(line) for line in lines]


def test_line_breaks_in_names_are_escaped() -> None:
    names = ("a\nb", "c\u2028d", "e\r\nf")
    result = result_of(TWO, model=replace(MODEL, class_names=names))
    body = lines_body([result, result], FORMATS["default"])
    assert body.count(b"\n") == 2
    assert b"\r" not in body


@pytest.mark.parametrize("body", [plain_body, instances_body, lines_body])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_works_in_every_body(body: Body, name: str) -> None:
    lines = body([result_of(TWO), BROKEN, LAST], FORMATS[name]).splitlines()
    assert all(parsed(line) for line in lines)


@pytest.mark.parametrize("envelope", [PLAIN, V1, V2], ids=["plain", "v1", "v2"])
@pytest.mark.parametrize("media_type", [JSON, JSON_LINES, JPEG, PNG, NPY, NPZ])
@pytest.mark.parametrize("name", FORMATS)
def test_values_that_are_not_finite_are_in_no_response(
    name: str, media_type: str, envelope: ResponseEnvelope
) -> None:
    """Detectron2 drops such instances itself; other networks may not."""
    boxes, scores = TWO.boxes_xyxy.copy(), TWO.scores.copy()
    boxes[0, 0], scores[1] = np.nan, np.inf
    assert TWO_OF_ALL.keypoints is not None
    found = replace(
        TWO_OF_ALL,
        boxes_xyxy=boxes,
        scores=scores,
        keypoints=np.full_like(TWO_OF_ALL.keypoints, np.nan),
    )
    options = replace(ALL, format=name)
    content = content_of(found, options=options, media_type=media_type, envelope=envelope)
    clean = content_of(
        replace(TWO_OF_ALL.select([])), options=options, media_type=media_type, envelope=envelope
    )
    assert render(content, MODEL, PLENTY).body == render(clean, MODEL, PLENTY).body


def test_image_that_a_format_cannot_hold_is_an_error_in_its_place() -> None:
    too_long = detections_of((1, 65_501), [(0, 0, 9, 1)])
    options = replace(ALL, format="jumpstart")
    first, second = json_of(TWO, too_long, options=options)["predictions"]
    assert len(first["scores"]) == 2
    assert (second["error"]["code"], len(second)) == ("not_acceptable", 1)
    [line, error] = body_of(TWO, too_long, options=options, media_type=JSON_LINES).splitlines()
    assert "scores" in parsed(line)
    assert "error" in parsed(error)
    for envelope in (PLAIN, V1):
        with pytest.raises(RequestError, match="65500"):
            body_of(too_long, options=options, envelope=envelope)
