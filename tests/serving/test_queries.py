"""The queries of docs/operating.md and of the dashboard, compared with the metrics."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from d2serve.servers.asgi.metrics import SERVER_RESPONSES
from d2serve.servers.torchserve.launcher.server import Server
from tests.serving.prometheus import labels_in, names_in, names_of, scrape


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
        ("a:b + on(c) d unless e offset 1d", {"a:b", "d", "e"}, {"c"}),
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
def test_every_query_uses_existing_metrics_and_labels(
    server: Server, repo_root: Path, queries: Any
) -> None:
    expressions = queries(repo_root)
    assert len(expressions) > 5
    text = scrape(server.ports)
    names = names_of(text)
    # Prometheus adds the last two, and has `up` for each server that it scrapes. The ASGI server's
    # own metric is not TorchServe's; tests/test_docs_tables.py checks its labels.
    labels = {*labels_of(repo_root), "instance", "job"}
    for expression in expressions:
        assert names_in(expression) <= names | {"up", SERVER_RESPONSES}, expression
        assert labels_in(expression) <= labels, expression
        assert expression.count("(") == expression.count(")")
    assert {"d2serve_requests_total", "d2serve_request_seconds_bucket"} < names


def labels_of(repo_root: Path) -> set[str]:
    declared = yaml.safe_load(
        (repo_root / "handler/d2serve/servers/torchserve/metrics.yaml").read_text(encoding="utf-8")
    )
    metrics = [
        metric
        for section in ("ts_metrics", "model_metrics")
        for kind in declared[section].values()
        for metric in kind
    ]
    return {name for metric in metrics for name in metric["dimensions"]} | {"le", "Hostname"}


def test_the_dashboard_is_importable_and_complete(repo_root: Path) -> None:
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
    for name in own_metrics(repo_root):
        assert any(query.startswith(name) for query in queried), f"no panel shows {name}"


def own_metrics(repo_root: Path) -> set[str]:
    declared = yaml.safe_load(
        (repo_root / "handler/d2serve/servers/torchserve/metrics.yaml").read_text(encoding="utf-8")
    )
    names = {m["name"] for kind in declared["model_metrics"].values() for m in kind}
    return {name for name in names if name.startswith("d2serve_")}


def test_the_page_documents_every_metric(repo_root: Path) -> None:
    page = (repo_root / "docs/operating.md").read_text(encoding="utf-8")
    for name in own_metrics(repo_root):
        assert f"`{name}`" in page, name
