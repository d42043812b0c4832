"""Metrics for Prometheus: those of the core, and responses that the server itself gives."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from d2serve.errors import RequestError

if TYPE_CHECKING:
    # Imported when the model loads, because the module imports torch.
    from d2serve.serving.metrics import Declaration, Sample

Metric: TypeAlias = Counter | Gauge | Histogram
# A metric and the names of its labels.
Declared: TypeAlias = tuple[Metric, tuple[str, ...]]
MODEL_LABEL = "ModelName"
PROCESS_LABEL = "WorkerName"
# There is one process, and a restart keeps its name.
PROCESS_NAME = "asgi"
SERVER_RESPONSES = "d2serve_server_responses_total"


class ServerMetrics:
    """The metrics of one server process, in a registry of their own.

    Attributes:
        registry: the registry.
        content_type: the Content-Type of `render`.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._responses = Counter(
            SERVER_RESPONSES,
            "Error responses of the server itself, to requests that did not reach a model",
            ["Status", "Code"],
            registry=self.registry,
        )
        self._core: dict[str, Declared] = {}

    def count_error(self, error: RequestError) -> None:
        """Count an error response of the server."""
        self._responses.labels(str(int(error.status)), error.code).inc()

    def render(self) -> bytes:
        """The current values in Prometheus's text format."""
        return generate_latest(self.registry)

    def sink(self, model_name: str) -> "PrometheusSink":
        """Return the sink of a model's metrics; all sinks share one set of metrics."""
        from d2serve.serving.metrics import METRICS

        if not self._core:
            self._core = {each.name: declare(each, self.registry) for each in METRICS}
        return PrometheusSink(self._core, model_name)


class PrometheusSink:
    """Receives the samples of one model.

    Args:
        metrics: the declared metrics by name.
        model_name: the value of the label `ModelName`.
    """

    def __init__(self, metrics: Mapping[str, Declared], model_name: str) -> None:
        self._metrics = metrics
        self._model_name = model_name

    def publish(self, samples: "Iterable[Sample]") -> None:
        """Add to counters, observe in histograms and set gauges."""
        for sample in samples:
            self._publish(sample)

    def _publish(self, sample: "Sample") -> None:
        metric, label_names = self._metrics[sample.name]
        names = {MODEL_LABEL: self._model_name, PROCESS_LABEL: PROCESS_NAME, **sample.labels}
        labelled = metric.labels(**{name: names[name] for name in label_names})
        if isinstance(labelled, Counter):
            labelled.inc(sample.value)
        elif isinstance(labelled, Histogram):
            labelled.observe(sample.value)
        else:
            labelled.set(sample.value)


def declare(declaration: "Declaration", registry: CollectorRegistry) -> Declared:
    """Declare a metric of the core."""
    name, description = declaration.name, declaration.description
    labels = (MODEL_LABEL, *declaration.labels)
    if declaration.kind == "counter":
        return Counter(name, description, labels, registry=registry), labels
    if declaration.kind == "gauge":
        return Gauge(name, description, labels, registry=registry), labels
    buckets = declaration.buckets
    return Histogram(name, description, labels, registry=registry, buckets=buckets), labels
