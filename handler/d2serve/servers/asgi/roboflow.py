"""Routes of roboflow's inference server, for the clients of its `inference-sdk`.

The requests are translated to the contract's own, so that the core parses and processes them.
"""

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from itertools import zip_longest
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from d2serve.errors import RequestError, bad_request
from d2serve.inputs.budget import RequestBudget
from d2serve.messages import VERSION, HttpRequest
from d2serve.outputs.result import json_bytes
from d2serve.servers.asgi.models import VERSIONS, Models, ServedModel
from d2serve.servers.asgi.responses import to_asgi
from d2serve.servers.asgi.roboflow_requests import (
    Inference,
    json_object,
    read_document,
    read_query,
)
from d2serve.serving.requests import HttpResponse
from d2serve.settings import Settings

Submitted: TypeAlias = "Sequence[Future[HttpResponse]]"
# Submits a message to the core; several responses if it makes several requests of it.
Submit: TypeAlias = Callable[[HttpRequest], Awaitable[Submitted]]
# Reads a request, submits it and waits for the core's responses.
Exchange: TypeAlias = Callable[[Request, Settings, Submit], Awaitable[list[HttpResponse]]]

PROCESS_ID = str(uuid.uuid4())
TASKS = ("object_detection", "instance_segmentation", "keypoints_detection")
# The SDK chooses one of the routes by it, and all of them are the same here.
TASK_TYPE = "instance-segmentation"


class RoboflowError(RequestError):
    """The contract's error with a `message` where the SDK expects it."""

    def body(self, *, is_open_inference: bool = False) -> dict[str, Any]:
        """The contract's error body, and the text that the SDK shows."""
        return _with_message(super().body(is_open_inference=is_open_inference))


class RoboflowApi:
    """The endpoints.

    Args:
        models: the served models.
        exchange: processes a request with the core.
    """

    def __init__(self, models: Models, exchange: Exchange) -> None:
        self.models = models
        self.exchange = exchange

    def routes(self) -> list[Route]:
        """The routes, to be matched after all others: `/{name}/{version}` is one of them."""
        return [
            Route("/info", self.info, methods=["GET"]),
            Route("/model/registry", self.registry, methods=["GET"]),
            Route("/model/add", self.add, methods=["POST"]),
            *(Route(f"/infer/{task}", self.infer, methods=["POST"]) for task in TASKS),
            *(
                Route(f"/{name}/{{version}}", partial(self.infer_v0, name), methods=["POST"])
                for name in self.models.names
            ),
        ]

    async def info(self, _: Request) -> Response:
        """The server; `uuid` differs between its processes."""
        return JSONResponse({"name": "d2serve", "version": VERSION, "uuid": PROCESS_ID})

    async def registry(self, _: Request) -> Response:
        """All models."""
        return _registry(*self.models.names)

    async def add(self, request: Request) -> Response:
        """Check that a model exists, and list all models, this one by the requested id.

        Raises:
            RequestError: 404 there is none.
        """

        async def submit(message: HttpRequest) -> Submitted:
            model_id = json_object(message, self._settings).get("model_id")
            self._model(model_id)
            listed.append(str(model_id))
            return ()

        listed = list(self.models.names)
        await self._exchanged(request, submit)
        return _registry(*dict.fromkeys(listed))

    async def infer(self, request: Request) -> Response:
        """Detect instances in the images of a JSON document."""

        def read(message: HttpRequest) -> tuple[ServedModel, Inference]:
            document = json_object(message, self._settings)
            model = self._model(document.get("model_id"))
            return model, read_document(document, model.model)

        return await self._infer(request, read)

    async def infer_v0(self, name: str, request: Request) -> Response:
        """Detect instances in one image: base64 as the body, options in the query string."""

        def read(message: HttpRequest) -> tuple[ServedModel, Inference]:
            model = self._model(f"{name}/{request.path_params['version']}")
            return model, read_query(message, model.model)

        return await self._infer(request, read)

    async def _infer(
        self, request: Request, read: Callable[[HttpRequest], tuple[ServedModel, Inference]]
    ) -> Response:
        started_s = time.monotonic()
        inference = Inference((), {})

        async def submit(message: HttpRequest) -> Submitted:
            nonlocal inference
            model, inference = await asyncio.to_thread(read, message)
            # Each drawn image is a request of its own, whose core cannot count the others.
            RequestBudget(model.settings).take_images(len(inference.images))
            model.check_room()
            messages = await asyncio.to_thread(inference.messages, message)
            inference = replace(inference, images=())
            return [model.submit(each) for each in messages]

        responses = await self._exchanged(request, submit)
        elapsed_s = time.monotonic() - started_s
        return to_asgi(await asyncio.to_thread(_joined, responses, inference, elapsed_s))

    async def _exchanged(self, request: Request, submit: Submit) -> list[HttpResponse]:
        try:
            return await self.exchange(request, self._settings, submit)
        except RequestError as error:
            raise RoboflowError(
                error.status, error.code, error.message, error.hint, error.headers
            ) from error

    @property
    def _settings(self) -> Settings:
        """The limits of a body whose model is not known yet."""
        return self.models.get(self.models.names[0]).settings

    def _model(self, model_id: Any) -> ServedModel:
        """The model of an id such as `shapes` or `shapes/1`.

        Raises:
            RequestError: 400 the id is not a string, 404 the model or version is unknown.
        """
        if not isinstance(model_id, str):
            raise bad_request("`model_id` is missing", "send the name of a model")
        name, _, version = model_id.partition("/")
        self.models.check_name(name, version or VERSIONS[0])
        return self.models.get(name)


def _registry(*model_ids: str) -> Response:
    models = [{"model_id": model_id, "task_type": TASK_TYPE} for model_id in model_ids]
    return JSONResponse({"models": models})


def _joined(
    responses: Sequence[HttpResponse], inference: Inference, elapsed_s: float
) -> HttpResponse:
    """One response: the detections with their time and the drawn images, or the error of all."""
    first, *drawn = responses
    if first.status != HTTPStatus.OK:
        return replace(first, body=json_bytes(_with_message(json.loads(first.body))))
    if inference.only_draws:
        return first
    content = json.loads(first.body)
    objects = content if isinstance(content, list) else [content]
    for found, image in zip_longest(objects, drawn):
        if "predictions" in found:  # not an error in an image's place
            found["time"] = round(elapsed_s, 6)
        if image and image.status == HTTPStatus.OK:
            found["visualization"] = base64.b64encode(image.body).decode("ascii")
    return replace(first, body=json_bytes(objects if inference.is_list else content))


def _with_message(body: dict[str, Any]) -> dict[str, Any]:
    error = body["error"]
    return {**body, "message": f"{error['message']}; {error['hint']}"}
