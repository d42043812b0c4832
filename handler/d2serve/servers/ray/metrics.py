"""Metrics of a replica in Ray's own metrics system, beside those of its `/metrics`."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ray.util.metrics import Counter, Gauge, Histogram

from d2serve.servers.asgi.metrics import MODEL_LABEL, PROCESS_LABEL

if TYPE_CHECKING:
    # Imported when the model loads, because the module imports torch.
    from d2serve.serving.metrics import Declaration, MetricsSink, Sample

APPLICATION_LABEL = "application"


class RaySink:
    """Publishes the samples of one model in Ray's metrics.

    Ray's agent adds the node and the worker, so that replicas do not overwrite each other's gauges.

    Args:
        model_name: the value of the label `ModelName`.
        application: name of the Serve application.
        replica: identifier of the replica, the value of the label `WorkerName`.
    """

    def __init__(self, model_name: str, application: str, replica: str) -> None:
        from d2serve.serving.metrics import METRICS

        self._labels = {
            MODEL_LABEL: model_name,
            APPLICATION_LABEL: application,
            PROCESS_LABEL: replica,
        }
        self._metrics = {each.name: (declare(each), _label_names(each)) for each in METRICS}

    def publish(self, samples: "Iterable[Sample]") -> None:
        """Add to counters, observe in histograms and set gauges."""
        for sample in samples:
            metric, names = self._metrics[sample.name]
            labels = {**self._labels, **sample.labels}
            record(metric, sample.value, {name: labels[name] for name in names})


class SeveralSinks:
    """Publishes the samples in several metrics systems."""

    def __init__(self, *sinks: "MetricsSink") -> None:
        self._sinks = sinks

    def publish(self, samples: "Iterable[Sample]") -> None:
        """Publish the samples in each system."""
        collected = list(samples)
        for sink in self._sinks:
            sink.publish(collected)


def declare(declaration: "Declaration") -> Any:
    """Declare a metric of the core in Ray's metrics."""
    name, description, labels = declaration.name, declaration.description, _label_names(declaration)
    if declaration.kind == "counter":
        return Counter(name, description, tag_keys=labels)
    if declaration.kind == "gauge":
        return Gauge(name, description, tag_keys=labels)
    return Histogram(name, description, boundaries=list(declaration.buckets), tag_keys=labels)


def record(metric: Any, value: float, labels: Mapping[str, str]) -> None:
    """Record a value; Ray's counters accept only values above 0."""
    if isinstance(metric, Gauge):
        metric.set(value, tags=dict(labels))
    elif isinstance(metric, Histogram):
        metric.observe(value, tags=dict(labels))
    elif value > 0:
        metric.inc(value, tags=dict(labels))


def _label_names(declaration: "Declaration") -> tuple[str, ...]:
    return tuple(dict.fromkeys((MODEL_LABEL, APPLICATION_LABEL, *declaration.labels)))
