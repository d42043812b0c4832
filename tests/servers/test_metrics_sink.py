"""Metrics through TorchServe, and their declarations."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from d2serve.servers.torchserve import metrics_sink
from d2serve.servers.torchserve.metrics_sink import (
    PROXY_RESPONSES,
    TorchServeSink,
    declared_metrics,
)
from d2serve.serving.metrics import METRICS, Sample
from tests.servers.metric import Metric

DECLARATIONS = Path(metrics_sink.__file__).with_name("metrics.yaml")
# Labels that the sink adds.
ADDED = {"ModelName", "Level", "WorkerName"}


def sink_of(**declared: Metric) -> TorchServeSink:
    return TorchServeSink(declared, "shapes", lambda: "W-9000")


def test_samples_are_published_with_the_labels_that_their_metric_declares() -> None:
    requests, memory = Metric("ModelName", "Code"), Metric("WorkerName", "Level")
    sink_of(requests=requests, memory=memory).publish(
        [
            Sample("requests", 2, {"Status": "200", "Code": "ok"}),
            Sample("memory", 5),
            Sample("not-declared", 1),
        ]
    )
    assert requests.recorded == [(2, ["shapes", "ok"])]
    assert memory.recorded == [(5, ["W-9000", "Model"])]


def test_the_workers_name_is_read_when_a_sample_is_published() -> None:
    names = ["before"]
    metric = Metric("WorkerName")
    sink = TorchServeSink({"a": metric}, "shapes", lambda: names[0])
    names[0] = "after"
    sink.publish([Sample("a", 1)])
    assert metric.recorded == [(1, ["after"])]


def test_a_metric_with_an_unknown_label_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    metric = Metric("ModelName", "Nothing")
    sink = sink_of(a=metric)
    for _ in range(2):
        sink.publish([Sample("a", 1)])
    assert metric.recorded == []
    [message] = caplog.messages
    assert "metric a is not published" in message


def test_the_metrics_are_those_declared_by_the_server() -> None:
    assert declared_metrics(SimpleNamespace(metrics=None)) == {}
    counter, gauge = Metric(), Metric()
    cache = {"counter": {"a": counter}, "gauge": {"b": gauge}}
    context = SimpleNamespace(metrics=SimpleNamespace(cache=cache))
    assert list(declared_metrics(context).items()) == [("a", counter), ("b", gauge)]


def test_torchserves_declarations_are_those_of_the_core_and_of_the_proxy() -> None:
    content = yaml.safe_load(DECLARATIONS.read_text(encoding="utf-8"))["model_metrics"]
    declared = {
        (kind, metric["name"], frozenset(metric["dimensions"]) - ADDED)
        for kind, metrics in content.items()
        for metric in metrics
        if metric["name"] != "PredictionTime"  # TorchServe's own
    }
    expected = {(each.kind, each.name, frozenset(each.labels) - ADDED) for each in METRICS}
    assert declared == expected | {("counter", PROXY_RESPONSES, frozenset({"Status", "Code"}))}
