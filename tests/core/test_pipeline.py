"""The pipeline from HTTP requests to responses, with a stand-in for the network."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d2serve.detections import RGBImage
from d2serve.detector.base import Failure, InferenceResult, PreprocessedImage
from d2serve.errors import SettingsError
from d2serve.messages import HttpRequest, Part, Style
from d2serve.serving.request_log import received
from d2serve.serving.request_state import RequestState
from tests.bodies import image_bytes, noise, npy_bytes
from tests.core.requests import (
    BAD,
    GOOD,
    MAX_PIXELS,
    NAMES,
    base64_png,
    batch_size,
    first_pixels,
    image,
    pipeline,
    png_request,
    request_of,
    require_error,
)
from tests.fakes import FakeDetector


def test_empty_batch() -> None:
    detector = FakeDetector()
    assert pipeline(detector).run([]) == []
    assert detector.images_per_call == []


def test_response_of_one_image() -> None:
    (response,) = pipeline().run([png_request(51)])
    content = json.loads(response.body)
    assert (response.status, response.content_type) == (200, "application/json")
    assert content["labels"] == ["ball 20%"]
    assert content["boxes"] == [[0.25, 0.5, 59, 39.5]]
    assert content["image"] == {"width": 60, "height": 40}


def test_images_of_all_requests_run_together() -> None:
    detector = FakeDetector()
    pipeline(detector).run([*GOOD.values(), BAD["empty"][0]])
    assert detector.images_per_call == [14]


def test_invalid_requests_do_not_reach_the_detector() -> None:
    detector = FakeDetector()
    pipeline(detector, max_image_pixels=MAX_PIXELS).run([request for request, _, _ in BAD.values()])
    assert detector.images_per_call == []


@pytest.mark.parametrize("name", BAD)
def test_invalid_request_has_its_own_status_and_error(name: str) -> None:
    request, status, code = BAD[name]
    (response,) = pipeline(max_image_pixels=MAX_PIXELS).run([request])
    require_error(response, status, code)


def test_responses_of_a_mixed_batch_equal_those_of_single_requests() -> None:
    served = pipeline(max_image_pixels=MAX_PIXELS)
    requests = [*GOOD.values(), *(request for request, _, _ in BAD.values())]
    np.random.default_rng(1).shuffle(requests)  # type: ignore[arg-type]
    together = served.run(requests)
    alone = [response for request in requests for response in served.run([request])]
    assert [(r.status, r.content_type, r.body) for r in together] == [
        (r.status, r.content_type, r.body) for r in alone
    ]
    assert sum(response.status == 200 for response in together) == len(GOOD)


def test_responses_are_in_the_order_of_the_requests() -> None:
    bad = BAD["truncated"][0]
    requests = [GOOD["npy-of-two"], bad, png_request(7), GOOD["npy"], bad, png_request(8)]
    first, _, second, third, _, fourth = pipeline().run(requests)
    assert [first_pixels(response) for response in (first, second, third, fourth)] == [
        [40, 50],
        [7],
        [30],
        [8],
    ]


def test_each_request_has_its_own_accept_header() -> None:
    accepts = ["image/png", None, "image/jpeg", "application/json", "text/html", "image/*"]
    responses = pipeline().run([png_request(9, accept) for accept in accepts])
    assert [(response.status, response.content_type) for response in responses] == [
        (200, "image/png"),
        (200, "application/json"),
        (200, "image/jpeg"),
        (200, "application/json"),
        (406, "application/json"),
        (200, "image/jpeg"),
    ]
    assert responses[0].body.startswith(b"\x89PNG")
    assert responses[2].body.startswith(b"\xff\xd8")


def test_errors_are_json_for_any_accept_header() -> None:
    (response,) = pipeline().run(
        [request_of(b"?", "image/png", {"accept": "image/png"})],
    )
    require_error(response, 415, "unsupported_media_type")


def test_several_images_are_predictions_in_order() -> None:
    (response,) = pipeline().run([GOOD["npy-of-two"]])
    assert list(json.loads(response.body)) == ["predictions"]
    assert first_pixels(response) == [40, 50]


def test_invalid_image_of_several_becomes_an_error_in_its_place() -> None:
    parts = [*GOOD["png"].parts, *BAD["truncated"][0].parts, *GOOD["npy"].parts]
    (response,) = pipeline().run([HttpRequest({}, tuple(parts))])
    first, second, third = json.loads(response.body)["predictions"]
    assert response.status == 200
    assert (first["scores"], third["scores"]) == ([0.039216], [0.117647])
    assert second["error"]["code"] == "bad_request"


@pytest.mark.parametrize("accept", ["image/png", "image/jpeg", "application/x-npy"])
def test_several_images_are_not_acceptable_in_a_type_for_one(accept: str) -> None:
    detector = FakeDetector()
    request = HttpRequest({"accept": accept}, GOOD["npy-of-two"].parts)
    neighbour = png_request(5)
    response, other = pipeline(detector).run([request, neighbour])
    require_error(response, 406, "not_acceptable")
    assert first_pixels(other) == [5]
    assert detector.images_per_call == [1]


def test_several_images_use_the_best_type_for_several() -> None:
    request = HttpRequest({"accept": "image/png, application/json;q=0.1"}, GOOD["npy-of-two"].parts)
    (response,) = pipeline().run([request])
    assert first_pixels(response) == [40, 50]


def test_too_many_images_are_a_413() -> None:
    (response,) = pipeline(max_images_per_request=1).run([GOOD["npy-of-two"]])
    require_error(response, 413, "too_large")


def test_failed_forward_pass_fails_only_its_request() -> None:
    detector = FakeDetector(fails_on=lambda pixels: bool(pixels[0, 0, 0] == 2))
    responses = pipeline(detector).run([png_request(1), png_request(2), png_request(3)])
    assert [response.status for response in responses] == [200, 500, 200]
    require_error(responses[1], 500, "internal")
    assert (first_pixels(responses[0]), first_pixels(responses[2])) == ([1], [3])


def test_failed_image_of_several_becomes_an_error_in_its_place() -> None:
    detector = FakeDetector(fails_on=lambda pixels: bool(pixels[0, 0, 0] == 50))
    (response,) = pipeline(detector).run([GOOD["npy-of-two"]])
    good, failed = json.loads(response.body)["predictions"]
    assert response.status == 200
    assert good["classes"] == [0]
    assert failed["error"]["code"] == "internal"


class BrokenDetector(FakeDetector):
    """Raises an error for batches with an image whose first red value is 1."""

    def run(self, images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
        if any(each.image[0, 0, 0] == 1 for each in images):
            raise ValueError("secret words at /opt/ml/model")
        return super().run(images)


def test_detector_error_is_a_500_and_keeps_the_clients_own_errors() -> None:
    requests = [png_request(1), BAD["text"][0], GOOD["npy-of-two"]]
    first, second, third = pipeline(BrokenDetector()).run(requests)
    require_error(first, 500, "internal")
    require_error(second, 415, "unsupported_media_type")
    assert [item["error"]["code"] for item in json.loads(third.body)["predictions"]] == [
        "internal",
        "internal",
    ]
    assert b"secret" not in first.body + third.body


def test_detector_error_fails_only_its_batch() -> None:
    requests = [png_request(1), GOOD["npy-of-two"], png_request(2)]
    first, second, third = pipeline(BrokenDetector(), images_per_forward=1).run(requests)
    require_error(first, 500, "internal")
    assert (first_pixels(second), first_pixels(third)) == ([40, 50], [2])


class CannotPreprocess(FakeDetector):
    """Raises on images whose first red value is 50."""

    def preprocess(self, image: RGBImage) -> PreprocessedImage:
        if image[0, 0, 0] == 50:
            raise ValueError("secret words at /opt/ml/model")
        return super().preprocess(image)


def test_preprocessing_error_stays_in_its_place() -> None:
    responses = pipeline(CannotPreprocess()).run(
        [png_request(1), png_request(50), GOOD["npy-of-two"]]
    )
    assert first_pixels(responses[0]) == [1]
    require_error(responses[1], 500, "internal")
    good, failed = json.loads(responses[2].body)["predictions"]
    assert (good["scores"], failed["error"]["code"]) == ([0.156863], "internal")


class BrokenHeaders(Mapping[str, str]):
    """Headers that raise an error when read, except for the Content-Type."""

    def __getitem__(self, name: str) -> str:
        if name == "content-type":
            raise KeyError(name)
        raise RuntimeError("secret words at /opt/ml/model/handler/pipeline.py")

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def test_internal_decoding_error_is_a_500_without_its_cause_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = HttpRequest(BrokenHeaders(), GOOD["png"].parts)
    with caplog.at_level(logging.ERROR):
        response, neighbour = pipeline().run([request, png_request(5)])
    require_error(response, 500, "internal")
    for word in (b"secret", b"/opt", b"Traceback", b".py", b"RuntimeError"):
        assert word not in response.body
    assert "secret words" in caplog.text
    assert first_pixels(neighbour) == [5]


def test_internal_encoding_error_is_a_500_without_its_cause_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unnamed = FakeDetector(finds_class=len(NAMES))
    with caplog.at_level(logging.ERROR):
        response, neighbour = pipeline(unnamed).run([png_request(5), BAD["text"][0]])
    require_error(response, 500, "internal")
    for word in (b"index", b"Traceback", b".py", b"IndexError"):
        assert word not in response.body
    assert "IndexError" in caplog.text
    require_error(neighbour, 415, "unsupported_media_type")


def test_server_timing_contains_stages_and_batch_size() -> None:
    requests = [png_request(1), BAD["text"][0], GOOD["npy-of-two"], GOOD["drawn-png"]]
    responses = pipeline().run(requests)
    assert [batch_size(response) for response in responses] == [4, 0, 4, 4]
    assert "forward;dur=12.50" in responses[0].headers["Server-Timing"]
    assert "forward;dur=0.00" in responses[1].headers["Server-Timing"]


def test_server_timing_of_a_failed_forward_pass() -> None:
    (response,) = pipeline(FakeDetector(fails_on=lambda _: True)).run([png_request(1)])
    assert batch_size(response) == 1
    assert "forward;dur=12.50" in response.headers["Server-Timing"]


def test_drawn_image_has_the_size_of_the_upright_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = image_bytes(image(1, height=40, width=60), "PNG", exif=exif)
    drawn, described = pipeline().run(
        [request_of(body, headers={"accept": "image/png"}), request_of(body)]
    )
    assert drawn.body[16:24] == (40).to_bytes(4, "big") + (60).to_bytes(4, "big")
    assert json.loads(described.body)["image"] == {"width": 40, "height": 60}


CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
SOURCES = {
    "archive": ({"max_detections": 4}, {}, {}, {}),
    "query": ({"max_detections": 3}, {"max_detections": "4"}, {}, {}),
    "attributes": ({}, {"max_detections": "3"}, {CUSTOM_ATTRIBUTES: "max_detections=4"}, {}),
    "parameters": (
        {},
        {},
        {CUSTOM_ATTRIBUTES: "max_detections=3"},
        {"parameters": {"max_detections": 4}},
    ),
    "accept": (
        {},
        {},
        {CUSTOM_ATTRIBUTES: "max_detections=5", "accept": "application/json;n_predictions=4"},
        {},
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_last_source_of_an_option_wins(source: str) -> None:
    options, query, headers, parameters = SOURCES[source]
    body = json.dumps({"image": base64_png(3), **parameters}).encode()
    request = request_of(body, "application/json", headers, query)
    parsed = pipeline(options=options).stages.parse(request)
    assert parsed.choice.options.max_detections == 4


def test_accept_wins_over_response_type() -> None:
    body = image_bytes(image(3), "PNG")
    both = request_of(body, headers={"accept": "image/jpeg"}, query={"response_type": "png"})
    one = request_of(body, headers={"accept": "*/*"}, query={"response_type": "png"})
    types = [response.content_type for response in pipeline().run([both, one])]
    assert types == ["image/jpeg", "image/png"]


def test_default_option_that_is_invalid_for_the_model_is_an_error() -> None:
    with pytest.raises(SettingsError, match="max_detections"):
        pipeline(options={"max_detections": 1000})


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        pytest.param([], None, id="no-array"),
        pytest.param([np.zeros((4, 4), np.uint8)], "0-255", id="uint8"),
        pytest.param([np.zeros((4, 4), np.float32)], "0-1", id="float"),
        pytest.param(
            [np.full((4, 4), -0.5), np.full((4, 4), 200.0)], "-1-1, 0-255", id="each-its-own"
        ),
    ],
)
def test_header_contains_the_range_of_arrays(
    arrays: "Sequence[np.ndarray[Any, Any]]", expected: str | None
) -> None:
    parts = [Part("application/x-npy", npy_bytes(array)) for array in arrays]
    parts.append(Part("image/png", image_bytes(image(1), "PNG")))
    (response,) = pipeline().run([HttpRequest({}, tuple(parts))])
    assert response.status == 200
    assert response.headers.get("X-Input-Range") == expected


def test_image_that_exceeds_the_memory_is_a_507() -> None:
    detector = FakeDetector(
        fails_on=lambda pixels: bool(pixels[0, 0, 0] == 2), failure=Failure.OUT_OF_MEMORY
    )
    good, large = pipeline(detector).run([png_request(1), png_request(2)])
    assert good.status == 200
    require_error(large, 507, "out_of_memory")


def test_expired_request_does_not_reach_the_network() -> None:
    detector = FakeDetector()
    late = replace(png_request(1), arrived=time.monotonic() - 61)
    expired, served = pipeline(detector).run([late, png_request(51)])
    require_error(expired, 503, "overloaded")
    assert expired.headers["Retry-After"] == "1"
    assert (served.status, detector.images_per_call) == (200, [1])


def test_response_over_the_limit_is_a_413() -> None:
    (response,) = pipeline(max_response_bytes=100).run([png_request(1)])
    require_error(response, 413, "too_large")


@pytest.mark.parametrize(
    ("array", "style"),
    [
        pytest.param(image(1), Style.PLAIN, id="one-image"),
        pytest.param(image(1)[None], Style.BATCH, id="a-batch-of-one"),
        pytest.param(np.stack([image(1), image(2)]), Style.BATCH, id="a-batch-of-two"),
    ],
)
def test_array_with_leading_n_is_a_batch(array: "np.ndarray[Any, Any]", style: Style) -> None:
    request = request_of(npy_bytes(array), "application/x-npy")
    stages, state = pipeline().stages, RequestState(request, received(request))
    state.start(stages.parse(request))
    stages.decode(state, item=0)
    assert state.parsed is not None
    assert state.parsed.envelope.style is style


def test_clarify_format_keeps_a_batch_of_one() -> None:
    query = {"format": "clarify"}
    body = npy_bytes(image(51)[None])
    (response,) = pipeline().run([request_of(body, "application/x-npy", query=query)])
    [[row]] = json.loads(response.body)
    assert row[:2] == [0, 0.2]
    (response,) = pipeline().run([request_of(body, "application/x-npy")])
    assert first_pixels(response) == [51]
    assert "labels" in json.loads(response.body)


def test_missing_decoder_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    def missing(body: bytes) -> RGBImage:
        raise ImportError("torchvision has no usable operator decode_jpeg")

    [response] = pipeline(decode_jpeg=missing).run(
        [request_of(image_bytes(noise(9, 9, 3), "JPEG"))]
    )
    error = json.loads(response.body)["error"]
    assert (response.status, error["code"]) == (500, "internal")
    assert "decode_jpeg" not in error["message"]
    assert "no usable operator decode_jpeg" in caplog.text


def test_jpeg_decoder_is_used() -> None:
    served = pipeline(decode_jpeg=lambda _: image(7))
    jpeg = image_bytes(noise(40, 60, 3), "JPEG")
    [given] = served.run([request_of(jpeg)])
    [expected] = pipeline().run([png_request(7)])
    assert given.status == 200
    assert given.body == expected.body
