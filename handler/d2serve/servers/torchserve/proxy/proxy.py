"""The worker's side of the reverse proxy: open the public port when a model is loaded."""

import atexit
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from d2serve.errors import CommandError, ProxyError
from d2serve.servers.cors import Cors
from d2serve.servers.torchserve.proxy.events import EventReceiver
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.shared_files import RuntimeFolder
from d2serve.servers.torchserve.proxy.supervisor import ProxySupervisor

PUBLIC_ADDRESS = "D2SERVE_PUBLIC_ADDRESS"
SERVER_ADDRESS = "TS_INFERENCE_ADDRESS"
# PEM files for TLS on the public port; TorchServe's own port does not need TLS then.
CERTIFICATE = "D2SERVE_CERTIFICATE"
KEY = "D2SERVE_CERTIFICATE_KEY"
# Origins of web pages that may use the public port, separated by commas.
CORS_ORIGINS = "D2SERVE_CORS_ORIGINS"
EXAMPLE = f"{PUBLIC_ADDRESS}=0.0.0.0:8080 with {SERVER_ADDRESS}=http://127.0.0.1:8081"
DEFAULT_LIMITS = Limits()
NO_CORS = Cors()


class Proxy:
    """The reverse proxy as a worker sees it, which opens the public port and closes it again.

    TorchServe's /ping reports healthy while its workers still load, and for five minutes while they
    cannot. The proxy opens the public port when the first worker has loaded its model, and reports
    unhealthy while no worker is ready. All workers with the same public address share one proxy.

    Args:
        public: `host:port` to listen on.
        upstream: `host:port` of TorchServe.
        model: the name and version of the worker's model.
        limits: limits for clients.
        certificate: PEM files of the certificate chain and its key, for TLS.
        cors: the web pages that may use the public port.
        on_lost: called when the proxy process has exited and cannot be restarted.
        on_event: called on a thread for each response of the proxy that no worker has made.

    Attributes:
        folder: the state that is shared with the proxy process.
        disconnects: the clients that have disconnected.
        supervisor: keeps the proxy process running.

    Raises:
        ProxyError: the port cannot be opened.
    """

    def __init__(
        self,
        public: str,
        upstream: str,
        model: tuple[str, str],
        limits: Limits = DEFAULT_LIMITS,
        certificate: Sequence[str] = (),
        cors: Cors = NO_CORS,
        on_lost: Callable[[], None] = lambda: None,
        on_event: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        try:
            self.folder = RuntimeFolder.of(public)
            self._ready = self.folder.ready_lock(*model)
        except OSError as error:
            raise ProxyError(f"the proxy's runtime folder cannot be opened: {error}") from error
        self.disconnects = self.folder.disconnects
        settings = [json.dumps(asdict(limits)), json.dumps(cors.origins)]
        arguments = [public, upstream, str(self.folder.path), *settings]
        self._ready.acquire_shared()
        try:
            EventReceiver(self.folder.path, on_event)
            self.supervisor = ProxySupervisor([*arguments, *certificate], self.folder.port, on_lost)
        except ProxyError as error:
            self._ready.release()
            self.folder.close()
            raise ProxyError(f"{PUBLIC_ADDRESS} {public} cannot be opened: {error}") from error
        atexit.register(self.folder.close)

    def close(self) -> None:
        """Accept no new connections; requests in progress still get their responses."""
        self.supervisor.release()
        self._ready.release()
        # Another worker may have started the process that has the port.
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(self.folder.port.read()), signal.SIGTERM)
        atexit.unregister(self.folder.close)
        self.folder.close()


def start_proxy(
    environment: Mapping[str, str],
    model: tuple[str, str],
    limits: Limits,
    on_lost: Callable[[], None],
    on_event: Callable[[dict[str, Any]], None],
) -> Proxy | None:
    """Open the public port that the environment names; None without one.

    Raises:
        ProxyError: the variables are inconsistent, or the port cannot be opened.
    """
    public = environment.get(PUBLIC_ADDRESS)
    if not public:
        return None
    address = environment.get(SERVER_ADDRESS, "")
    upstream = urlsplit(address)
    if not upstream.hostname or not upstream.port:
        raise ProxyError(
            f"{SERVER_ADDRESS} is {address!r}, but {PUBLIC_ADDRESS} requires a URL with host and "
            f"port in it; for example {EXAMPLE}"
        )
    certificate = [environment[name] for name in (CERTIFICATE, KEY) if name in environment]
    upstream_address = f"{upstream.hostname}:{upstream.port}"
    cors = _cors(environment.get(CORS_ORIGINS, ""))
    return Proxy(public, upstream_address, model, limits, certificate, cors, on_lost, on_event)


def _cors(origins: str) -> Cors:
    try:
        return Cors.of(origins.split(",") if origins.strip() else ())
    except CommandError as error:
        raise ProxyError(f"{CORS_ORIGINS}: {error}") from error
