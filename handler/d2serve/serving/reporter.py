"""Publish metrics and write the request log."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from threading import Lock

import torch

from d2serve.detector.base import ForwardPass
from d2serve.errors import RequestError
from d2serve.messages import Options
from d2serve.serving.metrics import (
    NO_METRICS,
    MetricsSink,
    Sample,
    forward_samples,
    memory_samples,
    request_samples,
    start_samples,
)
from d2serve.serving.request_log import log_request, request_report
from d2serve.serving.request_state import RequestState
from d2serve.serving.requests import HttpResponse
from d2serve.serving.telemetry import read_memory

logger = logging.getLogger(__name__)
# Prometheus scrapes every 15 to 60 seconds.
MEMORY_INTERVAL_S = 10.0
CPU = torch.device("cpu")


class Reporter:
    """Publishes metrics and writes the request log; its methods raise no errors.

    They may be called from any thread; one at a time calls the sink.

    Args:
        sink: publishes the samples.
        device: the network's device, whose memory is published.
        model_name: for the log.
        logs_requests: whether the log has a line for each request.
    """

    def __init__(
        self,
        sink: MetricsSink = NO_METRICS,
        device: torch.device = CPU,
        model_name: str = "",
        *,
        logs_requests: bool = False,
    ) -> None:
        self._sink = sink
        self._device = device
        self._model_name = model_name
        self._logs_requests = logs_requests
        self._memory_due_s = 0.0
        self._lock = Lock()

    def report_start(self) -> None:
        """Report that the model is loaded and warm."""
        self._publish(start_samples())

    def report_request(
        self,
        state: RequestState,
        response: HttpResponse,
        error: RequestError | None,
        defaults: Options,
        queued: Callable[[], int],
    ) -> None:
        """Report a request and its response; see `request_report` and `request_samples`."""
        if self._sink is NO_METRICS and not self._logs_requests:
            return
        try:
            report = request_report(state, response, error, defaults)
            if self._logs_requests:
                log_request(report, self._model_name)
        except Exception:  # the response is valid and must be sent
            logger.exception("a request could not be reported")
            return
        self._publish(request_samples(report, queued))

    def report_forward_passes(
        self, passes: Iterable[ForwardPass], queued: Callable[[], int]
    ) -> None:
        """Report forward passes; see `forward_samples`."""
        self._publish(forward_samples(passes, queued))
        if time.monotonic() >= self._memory_due_s:
            self._memory_due_s = time.monotonic() + MEMORY_INTERVAL_S
            self._publish(self._memory_samples())

    def _memory_samples(self) -> Iterator[Sample]:
        # A lost device raises errors here, while the samples are published.
        yield from memory_samples(read_memory(self._device))

    def _publish(self, samples: Iterable[Sample]) -> None:
        try:
            with self._lock:
                self._sink.publish(samples)
        except Exception:  # metrics must not stop the stage that reports them
            logger.exception("metrics could not be published")


SILENT = Reporter()
