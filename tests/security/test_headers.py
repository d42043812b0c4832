"""Line breaks in class names, options, types and query strings never reach headers or logs.

Their limits on size, numbers and nesting: tests/inputs, tests/bad_requests.py.
"""

import email
import json
import logging
import re
from pathlib import Path

import httpx
import pytest

from d2serve.messages import HttpRequest, Part
from d2serve.servers.torchserve.launcher.server import Server, ServerLogs
from d2serve.serving.pipeline import Pipeline
from d2serve.settings import Settings
from tests.bodies import image_bytes, noise, npy_bytes
from tests.fakes import FakeDetector, metadata_of

EVIL = "ball\r\nX-Evil: 1\r\n\r\n<script>"
# TorchServe parses lines like this as metrics.
METRIC = "\n[METRICS]Evil.Count:1|#Level:Model|#hostname:h,1\n"
IMAGE = image_bytes(noise(32, 48, 3), "PNG")
FORMATS = ("default", "clarify", "clarify-scores", "coco", "jumpstart")
VISIBLE = re.compile(r"[\x20-\x7e]*")


def test_the_payload_would_work() -> None:
    headers = email.message_from_string(f"X-Classes: {EVIL}")
    assert headers["X-Evil"] == "1"


def requests() -> list[HttpRequest]:
    """Line breaks wherever a client can put text."""
    hostile = [
        {"accept": accept, "x-amzn-sagemaker-custom-attributes": attributes, "content-type": kind}
        for accept in ("", EVIL, f"application/json;n_predictions={EVIL}", f"image/png;{EVIL}")
        for attributes in ("", EVIL, f"masks={EVIL}", json.dumps({EVIL: EVIL}), f"classes={EVIL}")
        for kind in ("image/png", f"image/png;{EVIL}", EVIL)
    ]
    hostile += [
        {"accept": "", "x-amzn-sagemaker-custom-attributes": f"format={name}"} for name in FORMATS
    ]
    hostile += [{"accept": name} for name in ("image/jpeg", "image/png", "application/x-npz")]
    made = [
        HttpRequest(headers, (Part(headers.get("content-type", ""), IMAGE),), query, EVIL)
        for headers in hostile
        for query in ({}, {EVIL: EVIL}, {"input_range": EVIL}, {"classes": EVIL})
    ]
    array = HttpRequest({}, (Part("application/x-npy", npy_bytes(noise(9, 9, 3))),), {}, EVIL)
    return [*made, array]


def test_headers_contain_nothing_of_the_request(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = Pipeline(FakeDetector(), metadata_of(EVIL, EVIL + "2"), Settings())
    with caplog.at_level(logging.DEBUG):
        responses = pipeline.run(requests())
    assert {response.status for response in responses} >= {200, 400, 415}
    for response in responses:
        for text in (response.content_type, *response.headers, *response.headers.values()):
            assert VISIBLE.fullmatch(text), text
            assert "Evil" not in text
    messages = [re.sub(re.escape(EVIL), "", record.getMessage()) for record in caplog.records]
    assert messages
    assert not [message for message in messages if "\n" in message or "Evil" in message]


@pytest.mark.parametrize("text", [EVIL, METRIC])
def test_a_real_server_forwards_no_line_breaks(
    server: Server, http: httpx.Client, jpeg: Path, text: str
) -> None:
    logs = ServerLogs(server.logs.folder)
    multipart = {"files": {text: (text, jpeg.read_bytes(), "image/jpeg")}}
    responses = [
        http.post(f"{server.url}/invocations", params=params, **body)
        for params in ({"masks": text}, {text: "1"}, {"classes": text}, {})
        for body in ({"content": jpeg.read_bytes()}, multipart)
    ]
    assert [response.status_code for response in responses].count(200) >= 1
    for response in responses:
        assert "x-evil" not in response.headers
        assert response.json()
    written = "".join(
        logs.text(log.name) for log in server.logs.folder.glob("*.log") if "access" not in log.name
    )
    assert not re.search(r"Evil", written)
    metrics = http.get(f"http://127.0.0.1:{server.ports.metrics}/metrics").text
    assert "Evil" not in metrics
