"""Metrics and log of a running server."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from d2serve.servers.torchserve.launcher.server import MODEL, SERVER, Server
from d2serve.serving.metrics import METRICS
from tests.bodies import image_bytes, npy_bytes
from tests.serving.prometheus import (
    counted,
    scrape,
    series_of,
    sum_of,
)
from tests.serving.served import request_line

LABELS = 'ModelName="shapes",Level="Model"'
ERRORS: dict[tuple[int, str], dict[str, Any]] = {
    (400, "bad_request"): {"content": b"\x89PNG\r\n\x1a\n"},
    (406, "not_acceptable"): {"headers": {"Accept": "audio/*"}},
    (413, "too_large"): {"content": npy_bytes(np.zeros((7_100, 7_100), np.uint8))},
    (415, "unsupported_media_type"): {"content": b"hello"},
    (422, "unprocessable"): {"content": npy_bytes(np.zeros((9, 9), np.int64))},
}


def send(http: httpx.Client, url: str, content: bytes, **given: Any) -> httpx.Response:
    return http.post(url, **{"content": content, **given})


def test_each_request_is_counted_once_and_timed(
    server: Server, http: httpx.Client, url: str, image: "np.ndarray[Any, Any]"
) -> None:
    before = series_of(scrape(server.ports))
    png, pair = image_bytes(image, "PNG"), npy_bytes(np.stack([image, image[::-1]]))
    responses = [send(http, url, png), send(http, url, png), send(http, url, pair)]
    for (status, code), given in ERRORS.items():
        rejected = send(http, url, **{"content": png, **given})
        assert (rejected.status_code, rejected.json()["error"]["code"]) == (status, code)
    sent = len(responses) + len(ERRORS)
    added = counted(
        server.ports, before, lambda now: sum_of(now, "d2serve_request_seconds_count") == sent
    )
    expected = {("200", "ok"): 3.0, **{(str(status), code): 1.0 for status, code in ERRORS}}
    for (label, code), count in expected.items():
        key = f'd2serve_requests_total{{{LABELS},Status="{label}",Code="{code}"}}'
        assert added[key] == count, key
    assert sum_of(added, "d2serve_requests_total") == sent
    found = [prediction for response in responses for prediction in predictions(response)]
    assert added[f'd2serve_images_total{{{LABELS},Code="ok"}}'] == len(found) == 4
    instances = sum(len(prediction["labels"]) for prediction in found)
    assert added[f"d2serve_instances_total{{{LABELS}}}"] == instances > 0
    height, width = image.shape[:2]
    assert added[f"d2serve_pixels_total{{{LABELS}}}"] == 4 * height * width
    assert added[f"d2serve_forward_images_sum{{{LABELS}}}"] == 4
    assert added[f"d2serve_forward_images_count{{{LABELS}}}"] == 3
    assert added[f'd2serve_forward_images_bucket{{{LABELS},le="1.0"}}'] == 2
    # A request with an unacceptable Accept is rejected before its image is decoded.
    for stage, count in {"decode": sent, "forward": 3, "encode": sent - 1}.items():
        assert added[f'd2serve_stage_seconds_count{{{LABELS},Stage="{stage}"}}'] == count
        assert added[f'd2serve_stage_seconds_sum{{{LABELS},Stage="{stage}"}}'] > 0
    stages = sum_of(added, "d2serve_stage_seconds_sum")
    assert stages <= added[f"d2serve_request_seconds_sum{{{LABELS}}}"]
    assert added[f"d2serve_request_seconds_count{{{LABELS}}}"] == sent
    assert sum_of(added, "ts_inference_requests_total") == sent


def predictions(response: httpx.Response) -> list[dict[str, Any]]:
    content = response.json()
    images: list[dict[str, Any]] = content.get("predictions", [content])
    return images


def test_each_request_of_a_batch_is_counted(
    server: Server, http: httpx.Client, url: str, png: Path
) -> None:
    before = series_of(scrape(server.ports))
    bodies = [png.read_bytes(), b"hello"] * 8
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda body: send(http, url, body), bodies))
    added = counted(
        server.ports,
        before,
        lambda now: sum_of(now, "d2serve_request_seconds_count") == len(bodies),
    )
    assert 1 <= sum_of(added, "d2serve_forward_images_count") < 8
    assert added[f'd2serve_requests_total{{{LABELS},Status="200",Code="ok"}}'] == 8
    assert sum_of(added, "d2serve_requests_total") == len(bodies)
    assert added[f"d2serve_forward_images_sum{{{LABELS}}}"] == 8
    stages = "d2serve_stage_seconds_count"
    for stage, count in {"decode": len(bodies), "encode": len(bodies)}.items():
        assert added[f'{stages}{{{LABELS},Stage="{stage}"}}'] == count


def test_a_worker_without_a_gpu_publishes_all_of_its_metrics(
    server: Server, http: httpx.Client, url: str, png: Path
) -> None:
    send(http, url, png.read_bytes())
    emitted = {metric.name for metric in METRICS} - {"d2serve_device_memory_bytes"}
    counted(server.ports, Counter(), lambda now: sum_of(now, "d2serve_instances_total") > 0)
    text = scrape(server.ports)
    series = series_of(text)
    for name in emitted:
        assert any(key.startswith(name) for key in series), name
    assert series[f"d2serve_worker_starts_total{{{LABELS}}}"] >= 1
    assert series[f"d2serve_out_of_memory_splits_total{{{LABELS}}}"] == 0
    assert "# TYPE d2serve_device_memory_bytes gauge" in text
    [worker] = [key for key in series if key.startswith("d2serve_worker_memory_bytes")]
    [loaded] = [key for key in series if key.startswith("WorkerLoadTime")]
    assert 'WorkerName="W-9000-shapes_1.0"' in worker
    assert 'WorkerName="W-9000-shapes_1.0"' in loaded


def test_metrics_do_not_fill_the_log(
    server: Server, http: httpx.Client, url: str, png: Path
) -> None:
    request_line(server, send(http, url, png.read_bytes()).headers["x-request-id"])
    assert "[METRICS]" not in server.logs.text(SERVER) + server.logs.text(MODEL)
