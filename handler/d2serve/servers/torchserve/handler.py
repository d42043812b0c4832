"""TorchServe handler: translates TorchServe's batches for the serving core and back."""

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from ts.torch_handler.base_handler import BaseHandler

from d2serve.errors import CLIENT_CLOSED_REQUEST, DeviceLostError, RequestError, bad_request
from d2serve.inputs.options import merged
from d2serve.messages import MODEL_NAME, HttpRequest, Part
from d2serve.servers.torchserve.draining import Activity, start_draining
from d2serve.servers.torchserve.metrics_sink import (
    TorchServeSink,
    declared_metrics,
    log_proxy_event,
)
from d2serve.servers.torchserve.proxy.forwarding import (
    ARRIVED_HEADER,
    CLIENT_HEADER,
    OPEN_INFERENCE,
    PROTOCOL_HEADER,
    QUERY_HEADER,
    TYPE_HEADER,
)
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.proxy import Proxy, start_proxy
from d2serve.servers.torchserve.workers import (
    model_version,
    read_workers,
    worker_device,
    worker_name,
)
from d2serve.serving.loading import load_pipeline
from d2serve.serving.log_context import install_request_ids
from d2serve.serving.model_config import MODEL_CONFIG_FILE
from d2serve.serving.requests import HttpResponse, error_response

logger = logging.getLogger(__name__)
RAW_BODY = "body"
# Without a phrase of its own in `http`.
PHRASES = {CLIENT_CLOSED_REQUEST: "Client Closed Request"}


class Detectron2Handler(BaseHandler):  # type: ignore[misc]
    """Serves a Detectron2 model.

    Attributes:
        pipeline: the loaded model, from requests to responses.
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
        for handler in logging.getLogger().handlers:
            install_request_ids(handler)
        folder = Path(context.system_properties["model_dir"])
        sink = TorchServeSink(
            declared_metrics(context), context.model_name, lambda: worker_name(context)
        )
        workers = partial(read_workers, folder / MODEL_CONFIG_FILE)
        self.pipeline = load_pipeline(
            folder,
            worker_device(context),
            context.model_name,
            share=workers,
            sink=sink,
            server_forms_batches=True,
            shares_weights=lambda: workers() > 1,
        )
        settings = self.pipeline.settings
        limits = Limits(
            settings.max_connections, settings.max_request_bytes, settings.max_queued_bytes
        )
        model = context.model_name, model_version(context)
        on_event = partial(log_proxy_event, sink)
        self.proxy = start_proxy(os.environ, model, limits, exit_worker, on_event)
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
        try:
            with self.activity:
                return self.postprocess(self.inference(self.preprocess(data)))
        except DeviceLostError:
            logger.critical("the device is lost; the worker exits", exc_info=True)
            exit_worker()

    def preprocess(self, data: Sequence[Mapping[str, Any]]) -> list[HttpRequest]:
        """Translate TorchServe's rows and headers to requests."""
        return [
            to_request(
                row,
                self.context.get_all_request_header(index),
                self.context.get_request_id(index),
                self.proxy,
            )
            for index, row in enumerate(data)
        ]

    def inference(self, data: Sequence[HttpRequest]) -> list[HttpResponse]:
        """Submit all requests and wait for their responses.

        Requests over TorchServe's gRPC API get an error: the API drops the status of a response,
        so that its clients would not notice any other error either.
        """
        responses = iter(self.pipeline.run([each for each in data if each.headers]))
        return [next(responses) if each.headers else error_response(no_grpc()) for each in data]

    def postprocess(self, data: Sequence[HttpResponse]) -> list[bytes]:
        """Give TorchServe the status and headers of each response; return the bodies."""
        for index, response in enumerate(data):
            publish_response(response, self.context, index)
        return [response.body for response in data]


def no_grpc() -> RequestError:
    """400: the request came over TorchServe's gRPC API, which passes no headers."""
    return bad_request(
        "TorchServe's gRPC API is not supported",
        "use HTTP, or the gRPC API of d2serve serve --server asgi --grpc-port 8001",
    )


def exit_worker() -> NoReturn:
    """End the process at once; TorchServe starts another worker.

    Nothing is cleaned up: CUDA's cleanup may hang on a lost device.
    """
    os._exit(1)


def to_request(
    row: Mapping[str, Any],
    headers: Mapping[str, Any],
    request_id: str | None,
    proxy: Proxy | None = None,
) -> HttpRequest:
    """Translate TorchServe's row of named values to a request.

    The raw body has the name `body`, also a form behind the proxy. TorchServe itself parses forms:
    a file has the name of its field, and headers of its own with a content type; form fields and
    the query string have none.

    Args:
        row: values by name.
        headers: of the request, and of each file by the name of its field.
        request_id: TorchServe's identifier of the request.
        proxy: knows which clients have disconnected, and is the only source of its header fields.
    """
    text_headers = {name.lower(): text for name, text in headers.items() if isinstance(text, str)}
    if TYPE_HEADER in text_headers:
        text_headers["content-type"] = text_headers.pop(TYPE_HEADER)
    parts = []
    query = merged(parse_qsl(text_headers.get(QUERY_HEADER, ""), keep_blank_values=True))
    for name, value in row.items():
        part_headers = headers.get(name)
        part_type = part_headers.get("content-type") if isinstance(part_headers, dict) else None
        if part_type:
            parts.append(Part(part_type, _as_bytes(value)))
        elif name == RAW_BODY:
            parts.append(Part(text_headers.get("content-type", ""), _as_bytes(value)))
        else:
            query[name] = _as_bytes(value).decode("utf-8", "replace")
    query.pop(MODEL_NAME, None)
    request = HttpRequest(text_headers, tuple(parts), query, request_id or "")
    return with_proxy(request, proxy) if proxy else request


def with_proxy(request: HttpRequest, proxy: Proxy) -> HttpRequest:
    """The request with what the proxy knows of it."""
    client_id = request.headers.get(CLIENT_HEADER, "")
    return replace(
        request,
        arrived=_arrival(request.headers.get(ARRIVED_HEADER, "")),
        is_disconnected=lambda: proxy.disconnects.is_disconnected(client_id),
        is_open_inference=request.headers.get(PROTOCOL_HEADER) == OPEN_INFERENCE,
    )


def publish_response(response: HttpResponse, context: Any, index: int) -> None:
    """Set the status, the content type and the headers of one request of the batch."""
    phrase = PHRASES.get(response.status) or HTTPStatus(response.status).phrase
    context.set_response_status(response.status, phrase, index)
    context.set_response_content_type(index, response.content_type)
    for name, value in response.headers.items():
        context.set_response_header(index, name, value)


def _arrival(text: str) -> float | None:
    """The proxy's time of arrival in seconds; None if a client without the proxy has set it."""
    try:
        arrived = float(text)
    except ValueError:
        return None
    return arrived if math.isfinite(arrived) else None


def _as_bytes(value: Any) -> bytes:
    """A body as received; TorchServe parses JSON unless decode_input_request=false."""
    return bytes(value) if isinstance(value, bytes | bytearray) else json.dumps(value).encode()
