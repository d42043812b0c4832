"""A deployment whose batches Ray's `serve.batch` forms, around d2serve's pipeline."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from d2serve.messages import HttpRequest, Part
from d2serve.servers.asgi.metrics import ServerMetrics
from d2serve.servers.ray.threads import prepare_environment
from d2serve.serving.cpu import available_cpus

MAX_BATCH_SIZE, WAIT_S = 8, 0.01
# Beyond all requests of the benchmark, so that they wait in `serve.batch` itself.
MAX_ONGOING_REQUESTS = 10_000
METRICS_PATH = "/metrics"


@serve.deployment(max_ongoing_requests=MAX_ONGOING_REQUESTS, health_check_timeout_s=300)
class BatchedModel:
    """A replica with d2serve's pipeline, whose batches `serve.batch` forms.

    Args:
        folder: the unpacked archive.
    """

    def __init__(self, folder: str) -> None:
        prepare_environment(os.environ)
        import torch

        from d2serve.serving.loading import load_pipeline

        self.metrics = ServerMetrics()
        cpus = available_cpus()
        self.pipeline = load_pipeline(
            Path(folder),
            torch.device("cpu"),
            "model",
            sink=self.metrics.sink("model"),
            server_forms_batches=True,
            overrides={"threads": min(cpus, torch.get_num_threads()), "decode_threads": cpus},
        )

    @serve.batch(  # type: ignore[untyped-decorator]
        max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=WAIT_S
    )
    async def predict(self, requests: Sequence[HttpRequest]) -> Sequence[Any]:
        """Process a batch, without blocking the event loop."""
        return await asyncio.to_thread(self.pipeline.run_together, requests)

    async def __call__(self, request: Request) -> Response:
        """Respond to a prediction, or with the metrics."""
        if request.url.path == METRICS_PATH:
            return Response(self.metrics.render(), media_type=self.metrics.content_type)
        headers = dict(request.headers)
        part = Part(headers["content-type"], await request.body())
        response = await self.predict(HttpRequest(headers, (part,)))
        return Response(response.body, response.status, media_type=response.content_type)
