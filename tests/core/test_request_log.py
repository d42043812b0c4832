"""The log lines of requests."""

import io
import json
import logging
from dataclasses import replace

import pytest

from d2serve.serving.log_context import install_request_ids, request_context
from d2serve.serving.request_log import MAX_LOGGED_SIZES, log_request, request_entry
from d2serve.serving.telemetry import ImageReport
from tests.core.samples import BAD, GOOD


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
        "queue_ms": 4.0,
        "forward_ms": 20.25,
        "encode_ms": 2.5,
        "total_ms": 31.25,
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
        for report in (GOOD, odd):
            log_request(report, "shapes")
    assert len(caplog.messages) == 2
    for text, report in zip(caplog.messages, (GOOD, odd), strict=True):
        assert text.isascii()
        assert text.isprintable()
        line = json.loads(text)
        assert line.items() >= request_entry(report).items()
        assert (line["event"], line["model"]) == ("request", "shapes")
        assert line["time"].endswith("+00:00")


def test_a_line_has_the_id_of_its_request_only_as_a_field() -> None:
    """TorchServe's log configuration and jq require lines of JSON only."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    install_request_ids(handler)
    logger = logging.getLogger("d2serve.serving.request_log")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with request_context("id-1"):
            log_request(GOOD, "shapes")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert json.loads(text.getvalue())["id"] == "id-1"
