"""Reports of requests for metrics and logs."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from d2serve.detector.base import Failure
from d2serve.messages import HttpRequest
from d2serve.serving import reporter as module
from d2serve.serving.reporter import Reporter
from d2serve.serving.request_log import request_report
from d2serve.serving.requests import HttpResponse
from d2serve.serving.telemetry import ImageReport, RequestReport
from tests.core.requests import BAD, GOOD, MAX_PIXELS, pipeline
from tests.core.samples import RecordingSink
from tests.fakes import FakeDetector


class Reports:
    """Serves requests, and returns their responses with the reports that are published."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sink = RecordingSink()
        self._reports: list[RequestReport] = []
        monkeypatch.setattr(module, "request_report", self._record)

    def of(
        self, request: HttpRequest, detector: FakeDetector | None = None
    ) -> tuple[HttpResponse, RequestReport]:
        reporter = Reporter(self.sink)
        [response] = pipeline(detector, reporter=reporter, max_image_pixels=MAX_PIXELS).run(
            [request]
        )
        [report] = self._reports
        return response, report

    def _record(self, *arguments: Any) -> RequestReport:
        self._reports.append(request_report(*arguments))
        return self._reports[-1]


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    return Reports(monkeypatch)


@pytest.mark.parametrize("name", BAD)
def test_report_of_an_invalid_request(reports: Reports, name: str) -> None:
    request, status, code = BAD[name]
    response, report = reports.of(request)
    assert report.received.request_id == "request-7"
    assert (report.status, report.code) == (status, code)
    assert report.message == json.loads(response.body)["error"]["message"]
    assert reports.sink.values("requests_total") == [(1, {"Status": str(status), "Code": code})]


@pytest.mark.parametrize("name", GOOD)
def test_report_of_a_valid_request(reports: Reports, name: str) -> None:
    request = GOOD[name]
    response, report = reports.of(request)
    assert report.received.size == sum(len(part.body) for part in request.parts)
    assert (report.status, report.code, report.message) == (200, "ok", "")
    assert (report.size, report.media_type) == (len(response.body), response.content_type)
    assert report.times.server_timing() == response.headers["Server-Timing"]
    sizes = [(image.width, image.height) for image in report.images]
    assert sizes == [(30, 80) if name == "bmp" else (60, 40)] * (2 if "two" in name else 1)
    assert {(image.code, image.instances) for image in report.images} == {("ok", 1)}
    assert reports.sink.values("images_total") == [(len(sizes), {"Code": "ok"})]


def test_report_has_the_code_of_each_failed_image(reports: Reports) -> None:
    detector = FakeDetector(lambda pixels: bool(pixels[0, 0, 0] == 20), Failure.OUT_OF_MEMORY)
    parts = [part for name in ("png", "bmp") for part in GOOD[name].parts]
    request = HttpRequest({}, (*parts, *BAD["truncated"][0].parts))
    _, report = reports.of(request, detector)
    assert report.code == "ok"
    assert report.images == (
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
    reports: Reports, query: Mapping[str, str], options: Mapping[str, Any]
) -> None:
    _, report = reports.of(replace(GOOD["png"], query=query))
    assert report.options == options


@pytest.mark.parametrize(
    ("header", "reported"),
    [
        pytest.param(None, "none", id="none"),
        pytest.param("Image/PNG", "image/png", id="known"),
        pytest.param("multipart/form-data; boundary=secret", "multipart/form-data", id="form"),
        pytest.param("text/secret", "other", id="unknown"),
    ],
)
def test_report_has_known_content_types_only(
    reports: Reports, header: str | None, reported: str
) -> None:
    headers = {} if header is None else {"content-type": header}
    _, report = reports.of(replace(GOOD["png"], headers=headers))
    assert report.received.media_type == reported


def test_log_line_is_that_of_the_report(reports: Reports, caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter(reports.sink, model_name="shapes", logs_requests=True)
    with caplog.at_level(logging.INFO):
        pipeline(reporter=reporter).run([GOOD["json-of-two"]])
    line = json.loads(caplog.messages[-1])
    assert (line["model"], line["id"], line["images"]) == ("shapes", "request-7", 2)
    assert (line["forward_ms"], line["forward_images"]) == (12.5, 2)


def test_responses_carry_no_telemetry() -> None:
    [response] = pipeline().run([GOOD["png"]])
    assert list(vars(response)) == ["status", "content_type", "body", "headers"]
    assert list(response.headers) == ["Server-Timing"]
