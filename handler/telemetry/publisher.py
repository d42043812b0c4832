"""Samples -> the metrics that the server was told of."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from handler.telemetry.metrics import Sample

logger = logging.getLogger(__name__)


class DeclaredMetric(Protocol):
    """One of the server's metrics, as TorchServe's metrics cache has them."""

    @property
    def dimension_names(self) -> Sequence[str]:
        """Names of its labels, in the order in which it takes their values."""
        ...

    def add_or_update(self, value: float, dimension_values: list[str]) -> None:
        """Adds to a counter, observes in a histogram, sets a gauge."""
        ...


class Publisher:
    """Hands samples on, less those that nobody declared.

    A metric is a line through the server's log, so one that nobody reads would only fill it.

    Args:
        declared: the server's metrics by name.
        model_name: the value of the label `ModelName`.
    """

    def __init__(self, declared: Mapping[str, DeclaredMetric], model_name: str) -> None:
        self.declared = dict(declared)
        self.common = {"ModelName": model_name, "Level": "Model"}

    def publish(self, samples: Iterable[Sample]) -> None:
        """Publishes each with the labels that its declaration names."""
        for sample in samples:
            metric = self.declared.get(sample.name)
            if metric is not None:
                self._publish(sample, metric)

    def _publish(self, sample: Sample, metric: DeclaredMetric) -> None:
        labels = {**self.common, **sample.labels}
        unknown = [name for name in metric.dimension_names if name not in labels]
        if unknown:
            logger.warning(
                "%s is not published: it is declared with the dimensions %s, and has %s",
                *(sample.name, ", ".join(metric.dimension_names), ", ".join(labels)),
            )
            del self.declared[sample.name]
            return
        metric.add_or_update(sample.value, [labels[name] for name in metric.dimension_names])
