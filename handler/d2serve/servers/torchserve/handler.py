"""TorchServe handler: translates TorchServe's batches for the serving core and back."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import torch
from ts.torch_handler.base_handler import BaseHandler

from d2serve.detector.base import Stopwatch
from d2serve.errors import DeviceLostError
from d2serve.messages import CLIENT_HEADER, HttpRequest, Part
from d2serve.servers.torchserve.draining import Activity, start_draining
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.proxy import Proxy, start_proxy
from d2serve.serving.loading import load_pipeline
from d2serve.serving.metrics import DeclaredMetric, Publisher, Reporter
from d2serve.serving.requests import HttpResponse

logger = logging.getLogger(__name__)
RAW_BODY = "body"
# TorchServe's own parameter in a query string.
MODEL_NAME = "model_name"


class Detectron2Handler(BaseHandler):  # type: ignore[misc]
    """Serves a Detectron2 model.

    Attributes:
        pipeline: the loaded model, from requests to responses.
        reporter: publishes metrics and writes the request log.
        activity: whether a batch is running.
        proxy: the reverse proxy on the public port; None without one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.activity = Activity()
        self.proxy: Proxy | None = None

    def initialize(self, context: Any) -> None:
        """Load the unpacked archive on the worker's device, warm it up, and accept requests.

        The public port, if the environment names one, opens only when the model is loaded.
        """
        folder, device = Path(context.system_properties["model_dir"]), worker_device(context)
        self.pipeline = load_pipeline(folder, device, context.model_name)
        settings = self.pipeline.settings
        self.reporter = Reporter(
            Publisher(declared_metrics(context), context.model_name),
            self.pipeline.detector.forward_passes,
            device,
            context.model_name,
            settings.request_log,
        )
        self.reporter.report_start()
        self.proxy = start_proxy(os.environ, Limits(settings.max_connections))
        if settings.drain_seconds:
            on_stop = self.proxy.close if self.proxy else None
            start_draining(self.activity, os.environ, settings.drain_seconds, on_stop)
        self.initialized = True

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Process a batch of requests; return one response body for each, in order.

        If the worker has lost its device, its process exits: TorchServe returns errors for the
        batch and starts another worker.
        """
        self.context = context
        self.watch = Stopwatch()
        try:
            with self.activity:
                return self.postprocess(self.inference(self.preprocess(data)))
        except DeviceLostError:
            logger.critical("the device is lost; the worker exits", exc_info=True)
            # Without cleaning up: CUDA's cleanup may hang on the lost device.
            os._exit(1)

    def preprocess(self, data: Sequence[Mapping[str, Any]]) -> list[HttpRequest]:
        """Translate TorchServe's rows and headers to requests."""
        return [self._request(index, row) for index, row in enumerate(data)]

    def inference(self, data: Sequence[HttpRequest]) -> list[HttpResponse]:
        """Run the requests through decoding, the network and encoding, which overlap."""
        return self.pipeline.run(data)

    def postprocess(self, data: Sequence[HttpResponse]) -> list[bytes]:
        """Give TorchServe the status and headers of each response; return the bodies."""
        for index, response in enumerate(data):
            publish_response(response, self.context, index)
        reports = [response.report for response in data if response.report]
        self.reporter.report_batch(reports, self.watch.elapsed_ms(), worker_name(self.context))
        return [response.body for response in data]

    def _request(self, index: int, row: Mapping[str, Any]) -> HttpRequest:
        headers = self.context.get_all_request_header(index)
        request = to_request(row, headers, self.context.get_request_id(index))
        client_id = request.headers.get(CLIENT_HEADER, "")
        if self.proxy and self.proxy.disconnects.is_disconnected(client_id):
            return replace(request, disconnected=True)
        return request


def to_request(
    row: Mapping[str, Any], headers: Mapping[str, Any], request_id: str | None
) -> HttpRequest:
    """Translate TorchServe's row of named values to a request.

    The raw body has the name `body`. A file of a multipart form has the name of its field, and
    headers of its own with a content type; form fields and the query string have none.
    """
    text_headers = {name.lower(): text for name, text in headers.items() if isinstance(text, str)}
    parts, query = [], {}
    for name, value in row.items():
        part_headers = headers.get(name)
        part_type = part_headers.get("content-type") if isinstance(part_headers, dict) else None
        if part_type:
            parts.append(Part(part_type, _as_bytes(value)))
        elif name == RAW_BODY:
            parts.append(Part(text_headers.get("content-type", ""), _as_bytes(value)))
        elif name != MODEL_NAME:
            query[name] = _as_bytes(value).decode("utf-8", "replace")
    return HttpRequest(text_headers, tuple(parts), query, request_id or "")


def publish_response(response: HttpResponse, context: Any, index: int) -> None:
    """Set the status, the content type and the headers of one request of the batch."""
    phrase = HTTPStatus(response.status).phrase
    context.set_response_status(response.status, phrase, index)
    context.set_response_content_type(index, response.content_type)
    for name, value in response.headers.items():
        context.set_response_header(index, name, value)


def worker_device(context: Any) -> torch.device:
    """The GPU that TorchServe assigned to this worker, or else the CPU."""
    gpu = context.system_properties.get("gpu_id")
    if gpu is not None and torch.cuda.is_available():
        return torch.device("cuda", int(gpu))
    return torch.device("cpu")


def worker_name(context: Any) -> str:
    """TorchServe's name of this worker, such as W-9000-shapes_1.0; a restart keeps it.

    TorchServe gives its workers only their socket, whose path or port ends with the number.
    """
    connection = getattr(context, "cl_socket", None)
    address = connection.getsockname() if connection else ""
    number = address.rpartition(".")[2] if isinstance(address, str) else address[1]
    version = (context.manifest or {}).get("model", {}).get("modelVersion", "")
    return f"W-{number}-{context.model_name}_{version}"


def declared_metrics(context: Any) -> dict[str, DeclaredMetric]:
    """The metrics that TorchServe's `metrics_config` declares, by name."""
    kinds = context.metrics.cache.values() if context.metrics else ()
    return {name: metric for kind in kinds for name, metric in kind.items()}


def _as_bytes(value: Any) -> bytes:
    """A body as received; TorchServe parses JSON unless decode_input_request=false."""
    return bytes(value) if isinstance(value, bytes | bytearray) else json.dumps(value).encode()
