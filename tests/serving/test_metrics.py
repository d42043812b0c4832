"""What an operator sees of a running server: its metrics port and its log."""

import json
from base64 import b64encode
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from handler.telemetry.metrics import batch_samples, start_samples
from scripts.server_logs import MODEL, SERVER
from scripts.torchserve import Server
from tests.bodies import image_bytes, npy_bytes
from tests.serving.prometheus import (
    counted,
    labels_in,
    names_in,
    names_of,
    scrape,
    series_of,
)
from tests.serving.served import request_line
from tests.telemetry.samples import BAD, GOOD, batch_of

LABELS = 'ModelName="shapes",Level="Model"'
REFUSALS = {
    (400, "bad_request"): {"content": b"\x89PNG\r\n\x1a\n"},
    (406, "not_acceptable"): {"headers": {"Accept": "audio/*"}},
    (413, "too_large"): {"content": npy_bytes(np.zeros((7_100, 7_100), np.uint8))},
    (415, "unsupported_media_type"): {"content": b"hello"},
    (422, "unprocessable"): {"content": npy_bytes(np.zeros((9, 9), np.int64))},
}


def total(series: "Counter[str]", name: str) -> float:
    """Over all labels."""
    return sum(value for key, value in series.items() if key.startswith(name + "{"))


def ask(http: httpx.Client, url: str, content: bytes, **given: Any) -> httpx.Response:
    return http.post(url, **{"content": content, **given})


def test_each_request_is_counted_once_and_with_what_it_took(
    server: Server, http: httpx.Client, url: str, picture: "np.ndarray[Any, Any]"
) -> None:
    before = series_of(scrape(server.ports))
    png, pair = image_bytes(picture, "PNG"), npy_bytes(np.stack([picture, picture[::-1]]))
    answers = [ask(http, url, png), ask(http, url, png), ask(http, url, pair)]
    for (status, code), given in REFUSALS.items():
        refused = ask(http, url, **{"content": png, **given})
        assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    asked = len(answers) + len(REFUSALS)
    added = counted(
        server.ports, before, lambda now: total(now, "d2serve_batch_requests_sum") == asked
    )
    wanted = {("200", "ok"): 3.0, **{(str(status), code): 1.0 for status, code in REFUSALS}}
    for (status, code), count in wanted.items():
        key = f'd2serve_requests_total{{{LABELS},Status="{status}",Code="{code}"}}'
        assert added[key] == count, key
    assert total(added, "d2serve_requests_total") == asked
    assert added[f"d2serve_batch_requests_count{{{LABELS}}}"] == asked
    found = [answer for response in answers for answer in predictions(response)]
    assert added[f'd2serve_images_total{{{LABELS},Code="ok"}}'] == len(found) == 4
    instances = sum(len(answer["labels"]) for answer in found)
    assert added[f"d2serve_instances_total{{{LABELS}}}"] == instances > 0
    height, width = picture.shape[:2]
    assert added[f"d2serve_pixels_total{{{LABELS}}}"] == 4 * height * width
    assert added[f"d2serve_forward_images_sum{{{LABELS}}}"] == 4
    assert added[f"d2serve_forward_images_count{{{LABELS}}}"] == 3
    assert added[f'd2serve_forward_images_bucket{{{LABELS},le="1.0"}}'] == 2
    for stage, count in {"decode": asked, "forward": 3, "encode": 3}.items():
        assert added[f'd2serve_stage_seconds_count{{{LABELS},Stage="{stage}"}}'] == count
        assert added[f'd2serve_stage_seconds_sum{{{LABELS},Stage="{stage}"}}'] > 0
    stages = total(added, "d2serve_stage_seconds_sum")
    assert stages <= added[f"d2serve_batch_seconds_sum{{{LABELS}}}"]
    assert added[f"d2serve_batch_seconds_count{{{LABELS}}}"] == asked
    assert total(added, "ts_inference_requests_total") == asked


def predictions(response: httpx.Response) -> list[dict[str, Any]]:
    content = response.json()
    answers: list[dict[str, Any]] = content.get("predictions", [content])
    return answers


def test_requests_of_one_batch_are_counted_each(
    server: Server, http: httpx.Client, url: str, png: Path
) -> None:
    before = series_of(scrape(server.ports))
    bodies = [png.read_bytes(), b"hello"] * 8
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda body: ask(http, url, body), bodies))
    added = counted(
        server.ports, before, lambda now: total(now, "d2serve_batch_requests_sum") == len(bodies)
    )
    assert total(added, "d2serve_batch_requests_count") < len(bodies)
    assert added[f'd2serve_requests_total{{{LABELS},Status="200",Code="ok"}}'] == 8
    assert total(added, "d2serve_requests_total") == len(bodies)
    assert added[f"d2serve_forward_images_sum{{{LABELS}}}"] == 8
    assert total(added, "d2serve_stage_seconds_count") == len(bodies) + 8 + total(
        added, "d2serve_forward_images_count"
    )


def test_every_metric_that_a_worker_without_a_gpu_has_is_there(
    server: Server, http: httpx.Client, url: str, png: Path
) -> None:
    ask(http, url, png.read_bytes())
    emitted = {sample.name for sample in (*start_samples(), *batch_samples(batch_of(GOOD, BAD)))}
    counted(server.ports, Counter(), lambda now: total(now, "d2serve_instances_total") > 0)
    text = scrape(server.ports)
    series = series_of(text)
    for name in (*emitted, "d2serve_worker_memory_bytes"):
        assert any(key.startswith(name) for key in series), name
    assert series[f"d2serve_worker_starts_total{{{LABELS}}}"] >= 1
    assert series[f"d2serve_out_of_memory_splits_total{{{LABELS}}}"] == 0
    assert "# TYPE d2serve_device_memory_bytes gauge" in text
    [worker] = [key for key in series if key.startswith("d2serve_worker_memory_bytes")]
    [loaded] = [key for key in series if key.startswith("WorkerLoadTime")]
    assert 'WorkerName="W-9000-shapes_1.0"' in worker
    assert 'WorkerName="W-9000-shapes_1.0"' in loaded


def test_metrics_fill_no_log(server: Server, http: httpx.Client, url: str, png: Path) -> None:
    request_line(server, ask(http, url, png.read_bytes()).headers["x-request-id"])
    assert "[METRICS]" not in server.logs.text(SERVER) + server.logs.text(MODEL)


def test_a_request_is_one_line_of_json_without_what_the_client_wrote(
    server: Server, http: httpx.Client, url: str, png: Path
) -> None:
    body = {"image": b64encode(png.read_bytes()).decode(), "parameters": {"masks": "none"}}
    attributes = "max_detections=2"
    response = http.post(url, json=body, headers={"X-Amzn-SageMaker-Custom-Attributes": attributes})
    line = request_line(server, response.headers["x-request-id"])
    assert (line["status"], line["code"], line["model"]) == (200, "ok", "shapes")
    assert line["content_type"] == line["response_type"] == "application/json"
    assert line["bytes_in"] == len(response.request.content)
    assert line["bytes_out"] == len(response.content)
    size = response.json()["image"]
    assert line["sizes"] == [f"{size['width']}x{size['height']}"]
    assert line["options"] == {"masks": "none", "max_detections": 2}
    assert line["forward_ms"] > 0
    assert json.dumps(body["image"])[1:50] not in json.dumps(line)


@pytest.mark.parametrize(
    ("expression", "names", "labels"),
    [
        ("up", {"up"}, set()),
        (
            'sum by (le, A) (rate(x_bucket{b="c", D!="(y)"}[5m])) / 1e6',
            {"x_bucket"},
            {"le", "A", "b", "D"},
        ),
        (
            "histogram_quantile(0.99, sum by (le) (rate(x_bucket[$__rate_interval])))",
            {"x_bucket"},
            {"le"},
        ),
        ("a:b + on(c) d unless e", {"a:b", "d", "e"}, {"c"}),
        ("label_values(x, Model)", {"x", "Model"}, set()),
    ],
)
def test_names_and_labels_in_an_expression(
    expression: str, names: set[str], labels: set[str]
) -> None:
    assert names_in(expression) == names
    assert labels_in(expression) == labels


def dashboard(repo_root: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((repo_root / "docs/grafana/d2serve.json").read_text())
    return content


def dashboard_queries(repo_root: Path) -> list[str]:
    board = dashboard(repo_root)
    targets = [target for panel in board["panels"] for target in panel.get("targets", [])]
    return [target["expr"] for target in targets]


def alert_queries(repo_root: Path) -> list[str]:
    page = (repo_root / "docs/operating.md").read_text(encoding="utf-8")
    blocks = page.split("```yaml\n")[1:]
    rules = [yaml.safe_load(block.partition("```")[0]) for block in blocks]
    groups = [group for content in rules for group in content.get("groups", [])]
    return [rule["expr"] for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("queries", [dashboard_queries, alert_queries])
def test_every_query_asks_for_metrics_and_labels_that_exist(
    server: Server, repo_root: Path, queries: Any
) -> None:
    expressions = queries(repo_root)
    assert len(expressions) > 5
    text = scrape(server.ports)
    names = names_of(text)
    # Prometheus adds the last two, and has `up` for each server that it asks.
    labels = {*labels_of(repo_root), "instance", "job"}
    for expression in expressions:
        assert names_in(expression) <= names | {"up"}, expression
        assert labels_in(expression) <= labels, expression
        assert expression.count("(") == expression.count(")")
    assert {"d2serve_requests_total", "d2serve_batch_seconds_bucket"} < names


def labels_of(repo_root: Path) -> set[str]:
    declared = yaml.safe_load((repo_root / "handler/metrics.yaml").read_text(encoding="utf-8"))
    metrics = [
        metric
        for section in ("ts_metrics", "model_metrics")
        for kind in declared[section].values()
        for metric in kind
    ]
    return {name for metric in metrics for name in metric["dimensions"]} | {"le", "Hostname"}


def test_the_dashboard_can_be_imported_and_explains_itself(repo_root: Path) -> None:
    board = dashboard(repo_root)
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert {"model", "instance"} <= set(variables)
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels:
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
    queried = {name for expression in dashboard_queries(repo_root) for name in names_in(expression)}
    for name in ours(repo_root):
        assert any(query.startswith(name) for query in queried), f"no panel shows {name}"


def ours(repo_root: Path) -> set[str]:
    declared = yaml.safe_load((repo_root / "handler/metrics.yaml").read_text(encoding="utf-8"))
    names = {m["name"] for kind in declared["model_metrics"].values() for m in kind}
    return {name for name in names if name.startswith("d2serve_")}


def test_the_page_speaks_of_every_metric(repo_root: Path) -> None:
    page = (repo_root / "docs/operating.md").read_text(encoding="utf-8")
    for name in ours(repo_root):
        assert f"`{name}`" in page, name
