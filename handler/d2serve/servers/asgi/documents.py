"""The routes of documents: health, metrics, and the metadata of the models."""

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from d2serve.errors import method_not_allowed
from d2serve.outputs import open_inference_metadata as metadata
from d2serve.servers.asgi.metrics import ServerMetrics
from d2serve.servers.asgi.models import Models
from d2serve.servers.asgi.openapi import openapi_json
from d2serve.servers.asgi.predictions import PREDICT_SUFFIX


class Documents:
    """The endpoints of documents.

    Args:
        models: the served models.
        metrics: the metrics of the process.
    """

    def __init__(self, models: Models, metrics: ServerMetrics) -> None:
        self.models = models
        self.metrics = metrics

    def routes(self) -> list[Route]:
        """The routes, of GET requests."""
        endpoints = {
            "/ping": self.ping,
            "/metrics": self.get_metrics,
            "/openapi.json": self.get_openapi,
            "/v1/models": self.list_models,
            "/v1/models/{name}": self.v1_status,
            "/v2": self.server_metadata,
            "/v2/health/live": self.live,
            "/v2/health/ready": self.ready,
            "/v2/models/{name}": self.model_metadata,
            "/v2/models/{name}/versions/{version}": self.model_metadata,
            "/v2/models/{name}/ready": self.model_ready,
            "/v2/models/{name}/versions/{version}/ready": self.model_ready,
            "/v2/models/{name}/config": self.model_config,
            "/v2/models/{name}/versions/{version}/config": self.model_config,
        }
        return [Route(path, endpoint, methods=["GET"]) for path, endpoint in endpoints.items()]

    async def ping(self, _: Request) -> Response:
        """SageMaker's health check."""
        self.models.check_ready()
        return JSONResponse({"status": "Healthy"})

    async def get_metrics(self, _: Request) -> Response:
        """The metrics for Prometheus."""
        text = await asyncio.to_thread(self.metrics.render)
        return Response(text, headers={"content-type": self.metrics.content_type})

    async def get_openapi(self, _: Request) -> Response:
        """The OpenAPI document."""
        return Response(await asyncio.to_thread(openapi_json), media_type="application/json")

    async def list_models(self, _: Request) -> Response:
        """The names of all models (KServe v1)."""
        return JSONResponse({"models": list(self.models.names)})

    async def v1_status(self, request: Request) -> Response:
        """Readiness of a model (KServe v1)."""
        if request.path_params["name"].endswith(PREDICT_SUFFIX):
            raise method_not_allowed("POST")
        name = self.models.name_in(request.path_params)
        self.models.check_ready()
        return JSONResponse(metadata.v1_model_status(name))

    async def server_metadata(self, _: Request) -> Response:
        """The server and its extensions (Open Inference Protocol)."""
        return JSONResponse(metadata.server_metadata())

    async def live(self, _: Request) -> Response:
        """Liveness of the server."""
        return JSONResponse(metadata.live())

    async def ready(self, _: Request) -> Response:
        """Readiness of all models."""
        self.models.check_ready()
        return JSONResponse(metadata.ready())

    async def model_metadata(self, request: Request) -> Response:
        """The tensors of a model."""
        return JSONResponse(metadata.model_metadata(self.models.name_in(request.path_params)))

    async def model_ready(self, request: Request) -> Response:
        """Readiness of a model."""
        name = self.models.name_in(request.path_params)
        self.models.check_ready()
        return JSONResponse(metadata.model_ready(name))

    async def model_config(self, request: Request) -> Response:
        """The tensors of a model in the form of Triton's extension."""
        return JSONResponse(metadata.model_config(self.models.name_in(request.path_params)))
