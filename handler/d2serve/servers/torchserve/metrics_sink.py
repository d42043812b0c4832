"""Publish metrics through TorchServe."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any, Protocol

from d2serve.serving.log_context import request_context
from d2serve.serving.metrics import MetricsSink, Sample

logger = logging.getLogger(__name__)
PROXY_RESPONSES = "d2serve_proxy_responses_total"


class DeclaredMetric(Protocol):
    """A metric of TorchServe's metrics cache."""

    @property
    def dimension_names(self) -> Sequence[str]:
        """Names of its labels, in the order of their values."""
        ...

    def add_or_update(self, value: float, dimension_values: list[str]) -> None:
        """Add to a counter, observe in a histogram, or set a gauge."""
        ...


class TorchServeSink:
    """Publishes samples of the metrics that TorchServe's `metrics_config` declares.

    Each sample is a line in the server's log, so samples without a reader are dropped.

    Args:
        declared: the declared metrics, by name.
        model_name: the value of the label `ModelName`.
        worker_name: returns the value of the label `WorkerName`, which TorchServe sets only after
            the model is loaded.
    """

    def __init__(
        self,
        declared: Mapping[str, DeclaredMetric],
        model_name: str,
        worker_name: Callable[[], str],
    ) -> None:
        self._declared = dict(declared)
        self._model_name = model_name
        self._worker_name = worker_name
        self._lock = Lock()

    def publish(self, samples: Iterable[Sample]) -> None:
        """Publish each sample with the labels that its metric declares, from any thread."""
        # TorchServe recognizes the lines of metrics by their beginning.
        with self._lock, request_context():
            for sample in samples:
                metric = self._declared.get(sample.name)
                if metric is not None:
                    self._publish(sample, metric)

    def _publish(self, sample: Sample, metric: DeclaredMetric) -> None:
        labels = {
            "ModelName": self._model_name,
            "Level": "Model",
            "WorkerName": self._worker_name(),
            **sample.labels,
        }
        unknown = [name for name in metric.dimension_names if name not in labels]
        if unknown:
            logger.warning(
                "metric %s is not published: its declared dimensions are %s, accepted are %s",
                *(sample.name, ", ".join(metric.dimension_names), ", ".join(labels)),
            )
            del self._declared[sample.name]
            return
        metric.add_or_update(sample.value, [labels[name] for name in metric.dimension_names])


def log_proxy_event(sink: MetricsSink, event: Mapping[str, Any]) -> None:
    """Log and count a response of the reverse proxy that no worker has made."""
    logger.info(json.dumps(event))
    labels = {"Status": str(event["status"]), "Code": event["code"]}
    sink.publish([Sample(PROXY_RESPONSES, 1, labels)])


def declared_metrics(context: Any) -> dict[str, DeclaredMetric]:
    """The metrics that TorchServe's `metrics_config` declares, by name."""
    kinds = context.metrics.cache.values() if context.metrics else ()
    return {name: metric for kind in kinds for name, metric in kind.items()}
