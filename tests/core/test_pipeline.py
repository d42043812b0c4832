import itertools
import json
import logging
import re
import threading
import time
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d2serve.detections import Picture
from d2serve.detector.base import Failure, Outcome, Prepared
from d2serve.messages import HttpRequest, Part, Style
from d2serve.outputs.response import render
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.process import start_executor
from d2serve.serving.result_collector import PreparedRequest
from d2serve.serving.telemetry import HttpResponse, PictureReport
from d2serve.settings import Settings, SettingsError
from tests.bodies import image_bytes, noise, npy_bytes
from tests.fakes import FakeDetector, facts

NAMES = ("ball", "cube")
SERVER_TIMING = re.compile(
    r'decode;dur=\d+\.\d\d, forward;dur=\d+\.\d\d, encode;dur=\d+\.\d\d, batch;desc="(\d+)"'
)


def pipeline(detector: Any = None, names: Sequence[str] = NAMES, **settings: Any) -> Pipeline:
    return Pipeline(detector or FakeDetector(), facts(*names), Settings(**settings))


def request_of(
    body: bytes,
    content_type: str = "",
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
) -> HttpRequest:
    return HttpRequest(headers or {}, (Part(content_type, body),), query or {}, "request-7")


def json_request(content: Any, headers: Mapping[str, str] | None = None) -> HttpRequest:
    return request_of(json.dumps(content).encode(), "application/json", headers)


def picture(red: int, height: int = 40, width: int = 60) -> Picture:
    """Noise whose first pixel tells it from others."""
    pixels = noise(height, width, 3, seed=red)
    pixels[0, 0] = (red, 0, 0)
    return pixels


def png_request(red: int, accept: str | None = None) -> HttpRequest:
    headers = {} if accept is None else {"accept": accept}
    return request_of(image_bytes(picture(red), "PNG"), "image/png", headers)


def base64_png(red: int) -> str:
    return b64encode(image_bytes(picture(red), "PNG")).decode()


GOOD = {
    "png": png_request(10),
    "bmp": request_of(image_bytes(picture(20, 80, 30), "BMP"), "application/octet-stream"),
    "npy": request_of(npy_bytes(picture(30)), "application/x-npy"),
    "npy-of-two": request_of(npy_bytes(np.stack((picture(40), picture(50)))), "application/x-npy"),
    "drawn-png": png_request(60, accept="image/png"),
    "drawn-jpeg": png_request(70, accept="image/jpeg"),
    "json": json_request({"image": base64_png(80)}),
    "json-of-two": json_request({"instances": [base64_png(90), base64_png(100)]}),
    "json-lines": request_of(json.dumps(base64_png(110)).encode(), "application/jsonlines"),
    "tensors": json_request(
        {"inputs": [{"shape": [1], "datatype": "BYTES", "data": [base64_png(120)]}]}
    ),
    "rows": png_request(130, accept="application/x-npy"),
    "query": request_of(image_bytes(picture(140), "PNG"), query={"format": "clarify"}),
}
BAD = {
    "empty": (request_of(b""), 400, "bad_request"),
    "truncated": (request_of(image_bytes(picture(1), "PNG")[:500]), 400, "bad_request"),
    "raw": (request_of(bytes(99), "application/x-npy"), 400, "bad_request"),
    "accept": (png_request(1, accept="text/html"), 406, "not_acceptable"),
    "large": (request_of(image_bytes(noise(99, 99), "PNG")), 413, "too_large"),
    "text": (request_of(b"hello", "text/plain"), 415, "unsupported_media_type"),
    "nested": (request_of(b"[" * 10_000, "application/json"), 400, "bad_request"),
    "option": (request_of(b"?", query={"size": "7"}), 400, "bad_request"),
    "int64": (request_of(npy_bytes(np.zeros((9, 9), dtype=np.int64))), 422, "unprocessable"),
}
MAX_PIXELS = 5000


def scores(response: HttpResponse) -> list[float]:
    content = json.loads(response.body)
    objects = content.get("predictions", [content])
    return [round(item["scores"][0] * 255) for item in objects]


def require_error(response: HttpResponse, status: int, code: str) -> None:
    content = json.loads(response.body)
    assert (response.status, response.content_type) == (status, "application/json")
    assert list(content) == ["error"]
    assert sorted(content["error"]) == ["code", "hint", "message"]
    assert content["error"]["code"] == code
    assert all(isinstance(text, str) and text for text in content["error"].values())


def batch_of(responses: HttpResponse) -> int:
    match = SERVER_TIMING.fullmatch(responses.headers["Server-Timing"])
    assert match is not None
    return int(match[1])


def test_a_batch_of_no_requests_gives_no_responses() -> None:
    detector = FakeDetector()
    assert pipeline(detector).run([]) == []
    assert detector.pictures_per_call == []


def test_one_picture_is_answered_with_what_was_found_in_it() -> None:
    (response,) = pipeline().run([png_request(51)])
    content = json.loads(response.body)
    assert (response.status, response.content_type) == (200, "application/json")
    assert content["labels"] == ["ball 20%"]
    assert content["boxes"] == [[0.25, 0.5, 59, 39.5]]
    assert content["image"] == {"width": 60, "height": 40}


def test_all_good_pictures_of_a_batch_go_through_the_detector_together() -> None:
    detector = FakeDetector()
    pipeline(detector).run([*GOOD.values(), BAD["empty"][0]])
    assert detector.pictures_per_call == [14]


def test_a_batch_of_bad_requests_alone_never_reaches_the_detector() -> None:
    detector = FakeDetector()
    pipeline(detector, max_image_pixels=MAX_PIXELS).run([request for request, _, _ in BAD.values()])
    assert detector.pictures_per_call == []


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_gets_its_own_status_and_the_contracts_error(name: str) -> None:
    request, status, code = BAD[name]
    (response,) = pipeline(max_image_pixels=MAX_PIXELS).run([request])
    require_error(response, status, code)


def test_in_a_mixed_batch_everyone_gets_in_order_what_they_get_alone() -> None:
    served = pipeline(max_image_pixels=MAX_PIXELS)
    requests = [*GOOD.values(), *(request for request, _, _ in BAD.values())]
    np.random.default_rng(1).shuffle(requests)  # type: ignore[arg-type]
    together = served.run(requests)
    alone = [response for request in requests for response in served.run([request])]
    assert [(r.status, r.content_type, r.body) for r in together] == [
        (r.status, r.content_type, r.body) for r in alone
    ]
    assert sum(response.status == 200 for response in together) == len(GOOD)


def test_answers_belong_to_the_requests_that_they_are_given_to() -> None:
    bad = BAD["truncated"][0]
    requests = [GOOD["npy-of-two"], bad, png_request(7), GOOD["npy"], bad, png_request(8)]
    first, _, second, third, _, fourth = pipeline().run(requests)
    assert [scores(response) for response in (first, second, third, fourth)] == [
        [40, 50],
        [7],
        [30],
        [8],
    ]


def test_accept_is_heard_for_each_request() -> None:
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


def test_errors_are_json_whatever_type_was_wanted() -> None:
    (response,) = pipeline().run(
        [request_of(b"?", "image/png", {"accept": "image/png"})],
    )
    require_error(response, 415, "unsupported_media_type")


def test_several_pictures_come_as_predictions_in_order() -> None:
    (response,) = pipeline().run([GOOD["npy-of-two"]])
    assert list(json.loads(response.body)) == ["predictions"]
    assert scores(response) == [40, 50]


def test_a_bad_picture_among_several_has_its_error_in_its_place() -> None:
    parts = [*GOOD["png"].parts, *BAD["truncated"][0].parts, *GOOD["npy"].parts]
    (response,) = pipeline().run([HttpRequest({}, tuple(parts))])
    first, second, third = json.loads(response.body)["predictions"]
    assert response.status == 200
    assert (first["scores"], third["scores"]) == ([0.039216], [0.117647])
    assert second["error"]["code"] == "bad_request"


@pytest.mark.parametrize("accept", ["image/png", "image/jpeg", "application/x-npy"])
def test_several_pictures_cannot_be_answered_in_a_type_for_one(accept: str) -> None:
    detector = FakeDetector()
    request = HttpRequest({"accept": accept}, GOOD["npy-of-two"].parts)
    neighbour = png_request(5)
    response, other = pipeline(detector).run([request, neighbour])
    require_error(response, 406, "not_acceptable")
    assert scores(other) == [5]
    assert detector.pictures_per_call == [1]


def test_several_pictures_are_answered_in_the_best_type_that_can() -> None:
    request = HttpRequest({"accept": "image/png, application/json;q=0.1"}, GOOD["npy-of-two"].parts)
    (response,) = pipeline().run([request])
    assert scores(response) == [40, 50]


def test_too_many_pictures_in_a_request_are_a_413() -> None:
    (response,) = pipeline(max_images_per_request=1).run([GOOD["npy-of-two"]])
    require_error(response, 413, "too_large")


def test_a_picture_whose_forward_failed_fails_its_request_alone() -> None:
    detector = FakeDetector(fails_on=lambda pixels: bool(pixels[0, 0, 0] == 2))
    responses = pipeline(detector).run([png_request(1), png_request(2), png_request(3)])
    assert [response.status for response in responses] == [200, 500, 200]
    require_error(responses[1], 500, "internal")
    assert (scores(responses[0]), scores(responses[2])) == ([1], [3])


def test_a_failed_picture_among_several_has_its_error_in_its_place() -> None:
    detector = FakeDetector(fails_on=lambda pixels: bool(pixels[0, 0, 0] == 50))
    (response,) = pipeline(detector).run([GOOD["npy-of-two"]])
    good, failed = json.loads(response.body)["predictions"]
    assert response.status == 200
    assert good["classes"] == [0]
    assert failed["error"]["code"] == "internal"


class BrokenDetector(FakeDetector):
    """Raises, which no detector should, after some outcomes."""

    def __init__(self, after: int = 0) -> None:
        super().__init__()
        self.after = after

    def stream(self, pictures: Iterable[Prepared]) -> Iterator[tuple[int, Outcome]]:
        yield from super().stream(itertools.islice(pictures, self.after))
        raise ValueError("secret words at /opt/ml/model")


def test_a_detector_that_raises_gives_500_and_leaves_the_clients_own_errors() -> None:
    requests = [png_request(1), BAD["text"][0], GOOD["npy-of-two"]]
    first, second, third = pipeline(BrokenDetector()).run(requests)
    require_error(first, 500, "internal")
    require_error(second, 415, "unsupported_media_type")
    assert [item["error"]["code"] for item in json.loads(third.body)["predictions"]] == [
        "internal",
        "internal",
    ]
    assert b"secret" not in first.body + third.body


def test_a_detector_that_raises_midway_leaves_the_answers_that_are_there() -> None:
    requests = [png_request(1), GOOD["npy-of-two"], png_request(2), BAD["text"][0]]
    first, second, third, fourth = pipeline(BrokenDetector(after=2)).run(requests)
    assert scores(first) == [1]
    found, missing = json.loads(second.body)["predictions"]
    assert (found["scores"], missing["error"]["code"]) == ([0.156863], "internal")
    require_error(third, 500, "internal")
    require_error(fourth, 415, "unsupported_media_type")


class CannotPrepare(FakeDetector):
    """Raises on pictures whose first red value is 50."""

    def prepare(self, picture: Picture) -> Prepared:
        if picture[0, 0, 0] == 50:
            raise ValueError("secret words at /opt/ml/model")
        return super().prepare(picture)


def test_a_fault_while_preparing_a_picture_stays_in_its_place() -> None:
    responses = pipeline(CannotPrepare()).run([png_request(1), png_request(50), GOOD["npy-of-two"]])
    assert scores(responses[0]) == [1]
    require_error(responses[1], 500, "internal")
    good, failed = json.loads(responses[2].body)["predictions"]
    assert (good["scores"], failed["error"]["code"]) == ([0.156863], "internal")


class BrokenHeaders(Mapping[str, str]):
    """Headers whose reading raises, but for the Content-Type."""

    def __getitem__(self, name: str) -> str:
        if name == "content-type":
            raise KeyError(name)
        raise RuntimeError("secret words at /opt/ml/model/handler/pipeline.py")

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def test_a_fault_while_decoding_is_a_500_without_its_cause_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faulty = HttpRequest(BrokenHeaders(), GOOD["png"].parts)
    with caplog.at_level(logging.ERROR):
        response, neighbour = pipeline().run([faulty, png_request(5)])
    require_error(response, 500, "internal")
    for word in (b"secret", b"/opt", b"Traceback", b".py", b"RuntimeError"):
        assert word not in response.body
    assert "secret words" in caplog.text
    assert scores(neighbour) == [5]


def test_a_fault_while_encoding_is_a_500_without_its_cause_and_is_logged(
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


def test_server_timing_tells_the_stages_and_how_many_ran_together() -> None:
    requests = [png_request(1), BAD["text"][0], GOOD["npy-of-two"], GOOD["drawn-png"]]
    responses = pipeline().run(requests)
    assert [batch_of(response) for response in responses] == [4, 0, 4, 4]
    assert "forward;dur=12.50" in responses[0].headers["Server-Timing"]
    assert "forward;dur=0.00" in responses[1].headers["Server-Timing"]


def test_a_failed_forward_still_tells_its_time() -> None:
    (response,) = pipeline(FakeDetector(fails_on=lambda _: True)).run([png_request(1)])
    assert batch_of(response) == 1
    assert "forward;dur=12.50" in response.headers["Server-Timing"]


def test_a_drawn_picture_is_of_the_upright_pictures_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = image_bytes(picture(1, height=40, width=60), "PNG", exif=exif)
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
def test_the_last_source_of_an_option_wins(source: str) -> None:
    options, query, headers, parameters = SOURCES[source]
    body = json.dumps({"image": base64_png(3), **parameters}).encode()
    request = request_of(body, "application/json", headers, query)
    slot = pipeline(options=options).decode(request)
    assert isinstance(slot, PreparedRequest)
    assert slot.decoded.choice.options.max_detections == 4


def test_accept_wins_over_response_type() -> None:
    body = image_bytes(picture(3), "PNG")
    both = request_of(body, headers={"accept": "image/jpeg"}, query={"response_type": "png"})
    one = request_of(body, headers={"accept": "*/*"}, query={"response_type": "png"})
    types = [response.content_type for response in pipeline().run([both, one])]
    assert types == ["image/jpeg", "image/png"]


def test_a_default_option_that_the_model_cannot_follow_is_told_at_the_start() -> None:
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
def test_the_range_of_arrays_is_told(
    arrays: "Sequence[np.ndarray[Any, Any]]", expected: str | None
) -> None:
    parts = [Part("application/x-npy", npy_bytes(array)) for array in arrays]
    parts.append(Part("image/png", image_bytes(picture(1), "PNG")))
    (response,) = pipeline().run([HttpRequest({}, tuple(parts))])
    assert response.status == 200
    assert response.headers.get("X-Input-Range") == expected


def test_a_picture_that_does_not_fit_the_device_is_a_507_of_its_own() -> None:
    detector = FakeDetector(
        fails_on=lambda pixels: bool(pixels[0, 0, 0] == 2), failure=Failure.OUT_OF_MEMORY
    )
    good, large = pipeline(detector).run([png_request(1), png_request(2)])
    assert good.status == 200
    require_error(large, 507, "out_of_memory")


def test_a_request_that_waited_too_long_reaches_no_network() -> None:
    detector = FakeDetector()
    long_ago = {"x-d2serve-arrived": str(time.monotonic() - 61)}
    late = replace(png_request(1), headers=long_ago)
    refused, answered = pipeline(detector).run([late, png_request(51)])
    require_error(refused, 503, "overloaded")
    assert refused.headers["Retry-After"] == "1"
    assert (answered.status, detector.pictures_per_call) == (200, [1])


@pytest.mark.parametrize("name", BAD)
def test_a_refused_request_is_reported_with_its_id_the_code_and_the_reason(name: str) -> None:
    request, status, code = BAD[name]
    named = replace(request, request_id="request-7")
    (response,) = pipeline(max_image_pixels=MAX_PIXELS).run([named])
    assert response.report is not None
    assert response.report.received.request_id == "request-7"
    assert (response.report.status, response.report.code) == (status, code)
    assert response.report.message == json.loads(response.body)["error"]["message"]


@pytest.mark.parametrize("name", GOOD)
def test_a_request_is_reported_with_its_sizes_and_times(name: str) -> None:
    request = GOOD[name]
    (response,) = pipeline().run([request])
    report = response.report
    assert report is not None
    assert report.received.size == sum(len(part.body) for part in request.parts)
    assert (report.status, report.code, report.message) == (200, "ok", "")
    assert (report.size, report.media_type) == (len(response.body), response.content_type)
    assert report.times.server_timing() == response.headers["Server-Timing"]
    sizes = [(picture.width, picture.height) for picture in report.pictures]
    assert sizes == [(30, 80) if name == "bmp" else (60, 40)] * (2 if "two" in name else 1)
    assert {(picture.code, picture.instances) for picture in report.pictures} == {("ok", 1)}


def test_each_picture_that_failed_is_reported_with_its_own_code() -> None:
    detector = FakeDetector(lambda pixels: bool(pixels[0, 0, 0] == 20), Failure.OUT_OF_MEMORY)
    parts = [part for name in ("png", "bmp") for part in GOOD[name].parts]
    request = HttpRequest({}, (*parts, *BAD["truncated"][0].parts))
    (response,) = pipeline(detector).run([request])
    assert response.report is not None
    assert response.report.code == "ok"
    assert response.report.pictures == (
        PictureReport(60, 40, instances=1),
        PictureReport(30, 80, "out_of_memory"),
        PictureReport(code="bad_request"),
    )


@pytest.mark.parametrize(
    ("query", "options"),
    [
        pytest.param({}, {}, id="none"),
        pytest.param({"masks": "rle"}, {}, id="the-default"),
        pytest.param(
            {"classes": "cube,ball", "masks": "none"},
            {"classes": [0, 1], "masks": "none"},
            id="others",
        ),
    ],
)
def test_the_options_that_differ_from_the_defaults_are_reported(
    query: Mapping[str, str], options: Mapping[str, Any]
) -> None:
    (response,) = pipeline().run([replace(GOOD["png"], query=query)])
    assert response.report is not None
    assert response.report.options == options


@pytest.mark.parametrize(
    ("header", "reported"),
    [
        pytest.param(None, "none", id="none"),
        pytest.param("Image/PNG", "image/png", id="known"),
        pytest.param("multipart/form-data; boundary=secret", "multipart/form-data", id="a-form"),
        pytest.param("text/secret", "other", id="unknown"),
    ],
)
def test_a_content_type_is_reported_only_where_it_is_a_known_one(
    header: str | None, reported: str
) -> None:
    headers = {} if header is None else {"content-type": header}
    (response,) = pipeline().run([replace(GOOD["png"], headers=headers)])
    assert response.report is not None
    assert response.report.received.media_type == reported


def test_an_answer_without_a_report_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2serve.serving.pipeline.request_report", lambda *_: 1 // 0)
    good, bad = pipeline().run([GOOD["png"], BAD["empty"][0]])
    assert (good.status, good.report, bad.status, bad.report) == (200, None, 400, None)


def test_a_response_over_the_limit_is_a_413() -> None:
    (response,) = pipeline(max_response_bytes=100).run([png_request(1)])
    require_error(response, 413, "too_large")


@pytest.mark.parametrize(
    ("array", "style"),
    [
        pytest.param(picture(1), Style.PLAIN, id="one-picture"),
        pytest.param(picture(1)[None], Style.BATCH, id="a-batch-of-one"),
        pytest.param(np.stack([picture(1), picture(2)]), Style.BATCH, id="a-batch-of-two"),
    ],
)
def test_an_array_with_a_leading_n_is_a_batch(array: "np.ndarray[Any, Any]", style: Style) -> None:
    slot = pipeline().decode(request_of(npy_bytes(array), "application/x-npy"))
    assert isinstance(slot, PreparedRequest)
    assert slot.decoded.wrapping.style is style


def test_clarify_gets_a_batch_of_one_back_as_one() -> None:
    query = {"format": "clarify"}
    body = npy_bytes(picture(51)[None])
    (response,) = pipeline().run([request_of(body, "application/x-npy", query=query)])
    [[row]] = json.loads(response.body)
    assert row[:2] == [0, 0.2]
    (response,) = pipeline().run([request_of(body, "application/x-npy")])
    assert scores(response) == [51]
    assert "labels" in json.loads(response.body)


PATIENCE_S = 20


def on_threads(threads: int, detector: FakeDetector) -> Pipeline:
    return Pipeline(detector, facts(*NAMES), Settings(), start_executor(threads))


def test_on_threads_everyone_gets_in_order_what_they_get_in_one() -> None:
    requests = [*GOOD.values(), *(request for request, _, _ in BAD.values())] * 3
    alone = pipeline().run(requests)
    together = on_threads(4, FakeDetector()).run(requests)
    assert [(r.status, r.content_type, r.body) for r in together] == [
        (r.status, r.content_type, r.body) for r in alone
    ]


class Meeting(FakeDetector):
    """Prepares no picture before as many are being prepared as are to meet."""

    def __init__(self, parties: int) -> None:
        super().__init__()
        self.barrier = threading.Barrier(parties)

    def prepare(self, picture: Picture) -> Prepared:
        self.barrier.wait(PATIENCE_S)
        return super().prepare(picture)


def test_requests_are_decoded_side_by_side() -> None:
    responses = on_threads(3, Meeting(3)).run([png_request(red) for red in (1, 2, 3)])
    assert [scores(response) for response in responses] == [[1], [2], [3]]


class OneByOne(FakeDetector):
    """Runs a picture at a time; during the first forward, waits for what should go on meanwhile."""

    def __init__(self, awaited: threading.Event) -> None:
        super().__init__()
        self.awaited = awaited

    def stream(self, pictures: Iterable[Prepared]) -> Iterator[tuple[int, Outcome]]:
        for position, picture in enumerate(pictures):
            if position == 1:
                assert self.awaited.wait(PATIENCE_S), "nothing went on beside the network"
            ((_, outcome),) = super().stream([picture])
            yield position, outcome


def test_answers_are_encoded_while_the_network_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = threading.Event()

    def render_and_tell(*arguments: Any) -> bytes:
        body = render(*arguments)
        encoded.set()
        return body

    monkeypatch.setattr("d2serve.serving.pipeline.render", render_and_tell)
    responses = on_threads(2, OneByOne(encoded)).run([png_request(red) for red in (1, 2)])
    assert [scores(response) for response in responses] == [[1], [2]]


class LastTold(OneByOne):
    """Tells when the picture whose first red value is 3 is being prepared, which before the network
    has begun it never is."""

    def __init__(self) -> None:
        super().__init__(threading.Event())
        self.begun = threading.Event()

    def prepare(self, picture: Picture) -> Prepared:
        if picture[0, 0, 0] == 3:
            assert self.begun.wait(PATIENCE_S), "the network waited for the last request"
            self.awaited.set()
        return super().prepare(picture)

    def stream(self, pictures: Iterable[Prepared]) -> Iterator[tuple[int, Outcome]]:
        for entry in super().stream(pictures):
            self.begun.set()
            yield entry


def test_requests_are_decoded_while_the_network_runs() -> None:
    responses = on_threads(2, LastTold()).run([png_request(red) for red in (1, 2, 3)])
    assert [scores(response) for response in responses] == [[1], [2], [3]]


def test_a_request_alone_is_served_in_the_callers_thread() -> None:
    class Where(FakeDetector):
        def prepare(self, picture: Picture) -> Prepared:
            assert threading.current_thread() is threading.main_thread()
            return super().prepare(picture)

    (response,) = on_threads(2, Where()).run([png_request(1)])
    assert scores(response) == [1]


def test_jpegs_are_decoded_by_whom_the_pipeline_was_given() -> None:
    found = Pipeline(FakeDetector(), facts(*NAMES), Settings(), decode_jpeg=lambda body: picture(7))
    jpeg = image_bytes(noise(40, 60, 3), "JPEG")
    [given] = found.run([request_of(jpeg)])
    [expected] = pipeline().run([png_request(7)])
    assert given.status == 200
    assert given.body == expected.body
