"""Reports of requests for metrics and logs."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from d2serve.detector.base import Failure
from d2serve.messages import HttpRequest
from d2serve.serving.telemetry import ImageReport
from tests.core.requests import BAD, GOOD, MAX_PIXELS, pipeline
from tests.fakes import FakeDetector


@pytest.mark.parametrize("name", BAD)
def test_report_of_an_invalid_request(name: str) -> None:
    request, status, code = BAD[name]
    named = replace(request, request_id="request-7")
    (response,) = pipeline(max_image_pixels=MAX_PIXELS).run([named])
    assert response.report is not None
    assert response.report.received.request_id == "request-7"
    assert (response.report.status, response.report.code) == (status, code)
    assert response.report.message == json.loads(response.body)["error"]["message"]


@pytest.mark.parametrize("name", GOOD)
def test_report_of_a_valid_request(name: str) -> None:
    request = GOOD[name]
    (response,) = pipeline().run([request])
    report = response.report
    assert report is not None
    assert report.received.size == sum(len(part.body) for part in request.parts)
    assert (report.status, report.code, report.message) == (200, "ok", "")
    assert (report.size, report.media_type) == (len(response.body), response.content_type)
    assert report.times.server_timing() == response.headers["Server-Timing"]
    sizes = [(image.width, image.height) for image in report.images]
    assert sizes == [(30, 80) if name == "bmp" else (60, 40)] * (2 if "two" in name else 1)
    assert {(image.code, image.instances) for image in report.images} == {("ok", 1)}


def test_report_has_the_code_of_each_failed_image() -> None:
    detector = FakeDetector(lambda pixels: bool(pixels[0, 0, 0] == 20), Failure.OUT_OF_MEMORY)
    parts = [part for name in ("png", "bmp") for part in GOOD[name].parts]
    request = HttpRequest({}, (*parts, *BAD["truncated"][0].parts))
    (response,) = pipeline(detector).run([request])
    assert response.report is not None
    assert response.report.code == "ok"
    assert response.report.images == (
        ImageReport(60, 40, instances=1),
        ImageReport(30, 80, "out_of_memory"),
        ImageReport(code="bad_request"),
    )


@pytest.mark.parametrize(
    ("query", "options"),
    [
        pytest.param({}, {}, id="none"),
        pytest.param({"masks": "rle"}, {}, id="default"),
        pytest.param(
            {"classes": "cube,ball", "masks": "none"},
            {"classes": [0, 1], "masks": "none"},
            id="changed",
        ),
    ],
)
def test_report_has_the_options_that_differ_from_the_defaults(
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
        pytest.param("multipart/form-data; boundary=secret", "multipart/form-data", id="form"),
        pytest.param("text/secret", "other", id="unknown"),
    ],
)
def test_report_has_known_content_types_only(header: str | None, reported: str) -> None:
    headers = {} if header is None else {"content-type": header}
    (response,) = pipeline().run([replace(GOOD["png"], headers=headers)])
    assert response.report is not None
    assert response.report.received.media_type == reported


def test_response_is_valid_without_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2serve.serving.pipeline.request_report", lambda *_: 1 // 0)
    good, bad = pipeline().run([GOOD["png"], BAD["empty"][0]])
    assert (good.status, good.report, bad.status, bad.report) == (200, None, 400, None)
