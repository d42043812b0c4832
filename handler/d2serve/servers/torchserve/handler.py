"""TorchServe handler: the entry point of a model archive."""

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

from d2serve.detector.base import DeviceLostError
from d2serve.messages import CLIENT, HttpRequest, Part
from d2serve.servers.torchserve.draining import Activity, hold_while_busy
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.proxy import FrontDoor, open_front_door
from d2serve.serving.loading import load_pipeline
from d2serve.serving.metrics import DeclaredMetric, Publisher, Reporter
from d2serve.serving.telemetry import HttpResponse, Stopwatch
from d2serve.settings import Settings

logger = logging.getLogger(__name__)
RAW_BODY = "body"
# TorchServe's own in a query string: which model is asked.
MODEL_NAME = "model_name"


class Detectron2Handler(BaseHandler):  # type: ignore[misc]
    """Serves a Detectron2 model to every request of the batches that TorchServe forms."""

    def __init__(self) -> None:
        super().__init__()
        self.activity = Activity()
        self.door: FrontDoor | None = None

    def initialize(self, context: Any) -> None:
        """Loads the unpacked archive on the worker's device and runs pictures through it.

        Only then is the server open to others, where a front door is asked for.
        """
        folder, device = Path(context.system_properties["model_dir"]), worker_device(context)
        self.pipeline = load_pipeline(folder, device, context.model_name)
        settings = self.pipeline.settings
        self.reporter = Reporter(
            Publisher(declared_metrics(context), context.model_name),
            self.pipeline.detector.forwards,
            device,
            context.model_name,
            settings.request_log,
        )
        self.reporter.started()
        self.door = open_front_door(os.environ, client_limits(settings))
        if settings.drain_seconds:
            on_stop = self.door.close if self.door else None
            hold_while_busy(self.activity, os.environ, settings.drain_seconds, on_stop)
        self.initialized = True

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Takes a batch of TorchServe's requests; gives as many bodies, in order.

        A worker that has lost its device ends: TorchServe answers its batch by errors and starts
        another one.
        """
        self.context = context
        self.watch = Stopwatch()
        try:
            with self.activity:
                return self.postprocess(self.inference(self.preprocess(data)))
        except DeviceLostError:
            logger.critical("the device is lost, so this worker ends", exc_info=True)
            # At once: what CUDA would tidy up on the way out may hang on the lost device.
            os._exit(1)

    def preprocess(self, data: Sequence[Mapping[str, Any]]) -> list[HttpRequest]:
        """TorchServe's rows and headers -> requests."""
        return [self._request(index, row) for index, row in enumerate(data)]

    def inference(self, data: Sequence[HttpRequest]) -> list[HttpResponse]:
        """Requests -> responses: decoding, the network and encoding, which overlap."""
        return self.pipeline.run(data)

    def postprocess(self, data: Sequence[HttpResponse]) -> list[bytes]:
        """Responses -> each request's own status and headers for TorchServe, and the bodies."""
        for index, response in enumerate(data):
            publish_response(response, self.context, index)
        reports = [response.report for response in data if response.report]
        self.reporter.answered(reports, self.watch.elapsed_ms(), worker_name(self.context))
        return [response.body for response in data]

    def _request(self, index: int, row: Mapping[str, Any]) -> HttpRequest:
        headers = self.context.get_all_request_header(index)
        request = to_request(row, headers, self.context.get_request_id(index))
        number = request.headers.get(CLIENT, "")
        if self.door and self.door.departures.holds(number):
            return replace(request, abandoned=True)
        return request


def client_limits(settings: Settings) -> Limits:
    """What clients may take of the front door."""
    return Limits(
        connections=settings.max_connections,
        head_s=settings.request_head_seconds,
        body_s=settings.request_body_seconds,
        keep_alive_s=settings.keep_alive_seconds,
    )


def worker_device(context: Any) -> torch.device:
    """The GPU that TorchServe gave this worker, else the CPU."""
    gpu = context.system_properties.get("gpu_id")
    if gpu is not None and torch.cuda.is_available():
        return torch.device("cuda", int(gpu))
    return torch.device("cpu")


def worker_name(context: Any) -> str:
    """What TorchServe calls this worker, such as W-9000-shapes_1.0; it outlives a restart.

    TorchServe tells its workers their socket alone, whose name or port is the number.
    """
    connection = getattr(context, "cl_socket", None)
    address = connection.getsockname() if connection else ""
    number = address.rpartition(".")[2] if isinstance(address, str) else address[1]
    version = (context.manifest or {}).get("model", {}).get("modelVersion", "")
    return f"W-{number}-{context.model_name}_{version}"


def declared_metrics(context: Any) -> dict[str, DeclaredMetric]:
    """The metrics of the file that `metrics_config` names, by their names."""
    kinds = context.metrics.cache.values() if context.metrics else ()
    return {name: metric for kind in kinds for name, metric in kind.items()}


def to_request(
    row: Mapping[str, Any], headers: Mapping[str, Any], request_id: str | None
) -> HttpRequest:
    """TorchServe's row of named values -> a request.

    The raw body comes under `body`, files of a multipart form under their fields' names with a
    content type of their own among the headers; form fields and the query string have none.
    """
    texts = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    parts, query = [], {}
    for name, value in row.items():
        own_headers = headers.get(name)
        own_type = own_headers.get("content-type") if isinstance(own_headers, dict) else None
        if own_type:
            parts.append(Part(own_type, _as_bytes(value)))
        elif name == RAW_BODY:
            parts.append(Part(texts.get("content-type", ""), _as_bytes(value)))
        elif name != MODEL_NAME:
            query[name] = _as_bytes(value).decode("utf-8", "replace")
    return HttpRequest(texts, tuple(parts), query, request_id or "")


def _as_bytes(value: Any) -> bytes:
    """A body as the client sent it; without decode_input_request=false TorchServe parses JSON."""
    return bytes(value) if isinstance(value, bytes | bytearray) else json.dumps(value).encode()


def publish_response(response: HttpResponse, context: Any, index: int) -> None:
    """Gives one request of the batch its own status, content type and headers."""
    phrase = HTTPStatus(response.status).phrase
    context.set_response_status(response.status, phrase, index)
    context.set_response_content_type(index, response.content_type)
    for name, value in response.headers.items():
        context.set_response_header(index, name, value)
