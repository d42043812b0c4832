"""The replica of a Ray Serve application: the ASGI application around one model."""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray import serve
from starlette.types import ASGIApp

from d2serve.errors import ServerError
from d2serve.servers.asgi.app import create_app
from d2serve.servers.asgi.frame import Access
from d2serve.servers.asgi.metrics import ServerMetrics
from d2serve.servers.asgi.models import Models, State
from d2serve.servers.asgi.token import given_token
from d2serve.servers.ray.archives import local_folder
from d2serve.servers.ray.head import HeadLimit
from d2serve.servers.ray.health import check_pipeline
from d2serve.servers.ray.logs import configure_logging
from d2serve.servers.ray.metrics import RaySink, SeveralSinks
from d2serve.servers.ray.mount import Mounted
from d2serve.servers.ray.options import ApplicationOptions
from d2serve.servers.ray.threads import prepare_environment, replica_cpus
from d2serve.serving.cpu import available_cpus
from d2serve.serving.model_config import MODEL_CONFIG_FILE, read_settings

if TYPE_CHECKING:
    # torch takes seconds to import, and OpenMP's settings must be in the environment before.
    from d2serve.serving.pipeline import Pipeline

logger = logging.getLogger(__name__)
CPU = "CPU"


class ModelReplica:
    """One process with one model; Ray Serve starts and stops it.

    Args:
        options: the arguments of the application.
        name: the model's name.
        wrap: see `build_application`.
    """

    pipeline: "Pipeline"

    def __init__(
        self, options: ApplicationOptions, name: str, wrap: Callable[[ASGIApp], ASGIApp]
    ) -> None:
        configure_logging()
        self.options = options
        self.wrap = wrap
        self.models = Models([name])
        self.metrics = ServerMetrics()

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """Load the model, and return the ASGI application; Ray Serve calls it once."""
        [name] = self.models.names
        # Ray may run this in the event loop that also responds to its health checks.
        self.pipeline = await asyncio.to_thread(self._load, name)
        self.models.set_ready({name: self.pipeline})
        file = self.options.token_file
        access = Access(given_token(Path(file) if file else None))
        access.max_requests = self.pipeline.settings.max_connections
        app = create_app(
            self.models,
            access=access,
            metrics=self.metrics,
            cors_origins=self.options.cors_origins,
            playground=self.options.playground,
        )
        return Mounted(HeadLimit(self.wrap(app), self.metrics.count_error))

    async def check_health(self) -> None:
        """Ray Serve's health check: the process ends if it can no longer process requests.

        Ray replaces a process that has ended at once. After an exception it would repeat the check,
        and then wait for the requests in progress, which cannot complete.
        """
        if self.models.state is State.STOPPING:
            return
        try:
            check_pipeline(self.pipeline, self.options.forward_timeout_s)
        except ServerError as error:
            logger.critical("%s; the replica exits", error)
            os._exit(1)

    async def __del__(self) -> None:
        """Free the model when Ray Serve has stopped the replica after its last request."""
        pipeline = getattr(self, "pipeline", None)
        if pipeline is not None:
            self.models.state = State.STOPPING
            await asyncio.to_thread(pipeline.close)

    def _load(self, name: str) -> "Pipeline":
        prepare_environment(os.environ)
        import torch

        from d2serve.serving.loading import load_pipeline

        folder = local_folder(self.options.archive)
        settings = read_settings(folder / MODEL_CONFIG_FILE, overrides=self.options.settings)
        assigned = ray.get_runtime_context().get_assigned_resources().get(CPU, 0.0)
        cpus = replica_cpus(self.options, assigned, available_cpus())
        threads = {
            "threads": settings.threads or min(cpus, torch.get_num_threads()),
            "decode_threads": settings.decode_threads or cpus,
        }
        has_gpu = self.options.num_gpus > 0 and torch.cuda.is_available()
        device = torch.device("cuda", 0) if has_gpu else torch.device("cpu")
        context = serve.get_replica_context()
        sink = SeveralSinks(
            self.metrics.sink(name), RaySink(name, context.app_name, context.replica_tag)
        )
        overrides = {**self.options.settings, **threads}
        pipeline = load_pipeline(
            folder,
            device,
            name,
            sink=sink,
            shares_weights=self.options.has_several_replicas,
            overrides=overrides,
        )
        logger.info("model %s is ready on %s with threads %s", name, device, threads)
        return pipeline


def identity(app: ASGIApp) -> ASGIApp:
    """Serve an application as it is."""
    return app
