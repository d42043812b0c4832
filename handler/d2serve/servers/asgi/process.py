"""The server process: HTTP from the first moment, models as soon as they are loaded.

`supervisor.py` starts it, and restarts it when it ends.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import prometheus_client
import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from d2serve.errors import D2ServeError, RequestError
from d2serve.servers.asgi.app import create_app
from d2serve.servers.asgi.config import BACKLOG, LOG_FORMAT, TOKEN_VARIABLE, ServerConfig
from d2serve.servers.asgi.control import Control
from d2serve.servers.asgi.frame import Access
from d2serve.servers.asgi.http_server import HttpServer
from d2serve.servers.asgi.limits import ConnectionLimits
from d2serve.servers.asgi.loading import load_models
from d2serve.servers.asgi.metrics import ServerMetrics
from d2serve.servers.asgi.models import Models, State
from d2serve.servers.asgi.protocol import TimedProtocol
from d2serve.servers.asgi.rejection import Rejection, predictions_of
from d2serve.servers.asgi.responses import RareLog
from d2serve.servers.asgi.throttling import Clients
from d2serve.servers.asgi.watchdog import exit_unusable, start_watchdog
from d2serve.servers.body_memory import BodyMemory
from d2serve.serving.log_context import install_request_ids

if TYPE_CHECKING:
    # torch takes seconds to import, and HTTP does not wait for it.
    from d2serve.servers.asgi.grpc_server import GrpcServer
    from d2serve.serving.pipeline import Pipeline

logger = logging.getLogger(__name__)
KEEP_ALIVE_S = 75
# Open files that the process allows itself, and those that it needs besides its connections.
MAX_FILES = 65_536
RESERVED_FILES = 256
FAILED = 1
POLL_S = 0.02
# A stopping server responds for at least this time, to clients that connected just before and to
# health checks.
SHORTEST_DRAIN_S = 0.3
# For connections that still receive their last response when all requests have ended.
CLOSING_S = 5


class ServerProcess:
    """One server process.

    Args:
        config: its configuration.
        control: the connection to the supervisor.
        token: the token that clients need; empty for none.
    """

    def __init__(self, config: ServerConfig, control: Control, token: str) -> None:
        self.config = config
        self.control = control
        self.models = Models(list(config.folders))
        self.metrics = ServerMetrics()
        self.access = Access(token)
        self.bodies = BodyMemory()
        self._log = RareLog("refused")
        self.max_connections = max(1, raise_open_files() - RESERVED_FILES)
        self.pipelines: dict[str, Pipeline] = {}
        self.drain_s = 0.0
        self.server = HttpServer(self._uvicorn_config())
        self._grpc: GrpcServer | None = None
        self._draining: asyncio.Task[None] | None = None

    async def serve(self, listener: socket.socket) -> None:
        """Serve until SIGTERM, or until the supervisor ends."""
        loop = asyncio.get_running_loop()
        for stop in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stop, self._stop)
        loop.add_reader(self.control.fileno(), self._on_supervisor_end)
        threading.Thread(target=self._load, args=(loop,), name="loader", daemon=True).start()
        await self.server.serve([listener])

    def _load(self, loop: asyncio.AbstractEventLoop) -> None:
        """Load the models in a thread; the process ends if one cannot be used."""
        try:
            self.pipelines = load_models(self.config, self.metrics)
            asyncio.run_coroutine_threadsafe(self._open(), loop).result()
        except Exception as error:  # noqa: BLE001 (the supervisor reports it)
            # A stopping process ends anyway, and so does the loop that this thread waits for.
            if self._draining is None:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        message = str(error)
        if not isinstance(error, D2ServeError):
            logger.error("the model cannot be loaded", exc_info=error)
            message = f"the model cannot be loaded: {error}; the log above has the details"
        self.control.send({"failed": message})
        os._exit(FAILED)

    async def _open(self) -> None:
        """Accept predictions, unless the process is stopping already."""
        if self._draining is not None:
            return
        settings = [each.settings for each in self.pipelines.values()]
        self.drain_s = max(each.drain_seconds for each in settings)
        self.access.max_requests = max(each.max_connections for each in settings)
        start_watchdog(
            [each.forward_seconds for each in self.pipelines.values()],
            self.config.forward_timeout_s,
        )
        if self.config.grpc_port is not None:
            await self._start_grpc(self.config.grpc_port)
        if self._draining is None:
            self.models.set_ready(self.pipelines)
            self.control.send({"ready": True})

    async def _start_grpc(self, port: int) -> None:
        from d2serve.servers.asgi.grpc_server import GrpcOptions, start_grpc

        certificate = self.config.certificate
        settings = [each.settings for each in self.pipelines.values()]
        options = GrpcOptions(
            address=self.config.address,
            port=port,
            authorize=lambda headers: self.access.check_token(headers.get("authorization", "")),
            certificate=(certificate.chain, certificate.key) if certificate else None,
            max_request_bytes=max(each.max_request_bytes for each in settings),
            max_values=max(each.max_json_values for each in settings),
            max_calls=self.access.max_requests,
            bodies=self.bodies,
            max_queued_bytes=max(each.max_queued_bytes for each in settings),
            on_error=self.metrics.count_error,
            on_device_lost=lambda: exit_unusable("the device is lost"),
        )
        grpc = await start_grpc(self.models, options)
        if self._draining is None:
            self._grpc = grpc
        else:
            await grpc.stop(0)

    def _stop(self) -> None:
        """Finish the requests in progress, and end; further calls change nothing.

        systemd signals all processes of a service, and the supervisor passes its signal on. To end
        this process at once, the supervisor kills it.
        """
        if self._draining is not None:
            return
        was_ready = self.models.state is State.READY
        self.models.state = State.STOPPING
        self._draining = asyncio.get_running_loop().create_task(self._drain(was_ready))

    async def _drain(self, was_ready: bool) -> None:
        loop = asyncio.get_running_loop()
        started, drain_s = loop.time(), self.drain_s if was_ready else 0
        grpc_end = loop.create_task(self._grpc.stop(drain_s)) if self._grpc else None
        while loop.time() < started + drain_s:
            await asyncio.sleep(POLL_S)
            if not self.access.in_progress and loop.time() > started + SHORTEST_DRAIN_S:
                break
        if grpc_end:
            await grpc_end
        if self.access.in_progress:
            logger.warning("%s requests have not ended in time", self.access.in_progress)
        self.server.stop()

    def _on_supervisor_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self.control.fileno())
        logger.error("the supervisor has ended; the server process stops")
        self._stop()

    def _uvicorn_config(self) -> uvicorn.Config:
        app = create_app(
            self.models,
            access=self.access,
            metrics=self.metrics,
            cors_origins=self.config.cors_origins,
            bodies=self.bodies,
            on_device_lost=lambda: exit_unusable("the device is lost"),
            playground=self.config.playground,
        )
        proxies = ProxyHeadersMiddleware(
            cast(Any, app), self.config.forwarded_allow_ips
        ).trusted_hosts
        protocol = partial(
            TimedProtocol,
            limits=ConnectionLimits(),
            max_connections=lambda: min(self.access.max_requests, self.max_connections),
            on_error=self._on_protocol_error,
            clients=Clients(proxies.__contains__),
            reject=Rejection(
                self.models,
                self.access,
                predictions_of(self.models.names, app),
                self.metrics.count_error,
            ),
        )
        return uvicorn.Config(
            app,
            http=cast(type[asyncio.Protocol], protocol),
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            forwarded_allow_ips=self.config.forwarded_allow_ips,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=CLOSING_S,
            ssl_certfile=self.config.chain or None,
            ssl_keyfile=self.config.key or None,
        )

    def _on_protocol_error(self, error: RequestError, request_id: str) -> None:
        fields = {"id": request_id, "route": "none", "content_type": "none", "bytes_in": None}
        self._log.report(error, fields)
        self.metrics.count_error(error)


def configure_logging() -> None:
    """Log to stderr, with the ids of requests in each line."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    install_request_ids(handler)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # A log that cannot be written, as on a full disk, must not stop the server.
    logging.raiseExceptions = False
    # Its lines about connections and malformed requests repeat those of this server.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


def raise_open_files() -> int:
    """Allow as many open files as the system permits; return the number."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if limit > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(limit, soft)


def main() -> None:
    """Run the server process: the arguments are the configuration and two file descriptors."""
    config = ServerConfig.from_json(sys.argv[1])
    listener, control = (socket.socket(fileno=int(number)) for number in sys.argv[2:4])
    configure_logging()
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    process = ServerProcess(config, Control(control), os.environ.pop(TOKEN_VARIABLE, ""))
    asyncio.run(process.serve(listener))
    logging.shutdown()
    # Threads that still work must not delay the end.
    os._exit(0)
