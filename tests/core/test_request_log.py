"""The log lines of requests."""

import json
import logging
from dataclasses import replace

import pytest

from d2serve.serving.request_log import MAX_LOGGED_SIZES, log_requests, request_entry
from d2serve.serving.telemetry import ImageReport
from tests.core.samples import BAD, GOOD, batch_of


def test_fields_of_a_successful_request() -> None:
    assert request_entry(GOOD) == {
        "id": "id-1",
        "status": 200,
        "code": "ok",
        "content_type": "image/jpeg",
        "bytes_in": 1000,
        "response_type": "application/json",
        "bytes_out": 2000,
        "images": 2,
        "sizes": ["40x30", "0x0"],
        "pixels": 1200,
        "instances": 3,
        "failed_images": {"bad_request": 1},
        "options": {"masks": "none"},
        "decode_ms": 1.5,
        "forward_ms": 20.25,
        "encode_ms": 2.5,
        "forward_images": 2,
    }


def test_fields_of_a_failed_request() -> None:
    entry = request_entry(BAD)
    assert (entry["status"], entry["code"]) == (415, "unsupported_media_type")
    assert entry["message"] == "not an image"
    assert (entry["images"], entry["sizes"]) == (0, [])


def test_number_of_logged_sizes_is_limited() -> None:
    many = replace(GOOD, images=(ImageReport(10, 10),) * (MAX_LOGGED_SIZES + 1))
    entry = request_entry(many)
    assert len(entry["sizes"]) == MAX_LOGGED_SIZES
    assert (entry["images"], entry["pixels"]) == (
        MAX_LOGGED_SIZES + 1,
        100 * (MAX_LOGGED_SIZES + 1),
    )


def test_each_request_is_one_line_of_json(caplog: pytest.LogCaptureFixture) -> None:
    odd = replace(BAD, message="line\nbreak \u2028 \x1b[31m [METRICS]")
    with caplog.at_level(logging.INFO):
        log_requests(batch_of(GOOD, odd), "shapes")
    assert len(caplog.messages) == 2
    for text, request in zip(caplog.messages, (GOOD, odd), strict=True):
        assert text.isascii()
        assert text.isprintable()
        line = json.loads(text)
        assert line.items() >= request_entry(request).items()
        assert (line["event"], line["model"]) == ("request", "shapes")
        assert (line["batch_requests"], line["batch_ms"]) == (2, 250.0)
        assert line["time"].endswith("+00:00")
