"""The worker's side of the reverse proxy: open the public port when a model is loaded."""

import json
import os
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

from d2serve.errors import ProxyError
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.process import disconnects_file, port_file, workers_file
from d2serve.servers.torchserve.proxy.shared_files import DisconnectTable, FileLock
from d2serve.servers.torchserve.proxy.supervisor import ProxySupervisor

PUBLIC_ADDRESS = "D2SERVE_PUBLIC_ADDRESS"
SERVER_ADDRESS = "TS_INFERENCE_ADDRESS"
# PEM files for TLS on the public port; TorchServe's own port does not need TLS then.
CERTIFICATE = "D2SERVE_CERTIFICATE"
KEY = "D2SERVE_CERTIFICATE_KEY"
EXAMPLE = f"{PUBLIC_ADDRESS}=0.0.0.0:8080 with {SERVER_ADDRESS}=http://127.0.0.1:8081"
DEFAULT_LIMITS = Limits()


class Proxy:
    """The reverse proxy as a worker sees it, which opens the public port and closes it again.

    TorchServe's /ping reports healthy while its workers still load, and for five minutes while they
    cannot. The proxy opens the public port when the first worker has loaded its model, and reports
    unhealthy while no worker is ready; see `d2serve.servers.torchserve.proxy.process`.

    Args:
        public: `host:port` to listen on.
        upstream: `host:port` of TorchServe.
        state: path prefix of the files that the workers of one TorchServe share.
        limits: limits for clients.
        certificate: PEM files of the certificate chain and its key, for TLS.
        on_lost: called when the proxy process has exited and cannot be restarted.

    Attributes:
        disconnects: the clients that have disconnected.
        supervisor: keeps the proxy process of this worker running.

    Raises:
        ProxyError: the port cannot be opened.
    """

    def __init__(
        self,
        public: str,
        upstream: str,
        state: Path,
        limits: Limits = DEFAULT_LIMITS,
        certificate: Sequence[str] = (),
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        try:
            self._workers = FileLock(workers_file(state))
            self._port = FileLock(port_file(state))
            self.disconnects = DisconnectTable(disconnects_file(state))
        except OSError as error:
            raise ProxyError(f"the proxy's state files cannot be opened: {error}") from error
        arguments = [public, upstream, str(state), json.dumps(asdict(limits)), *certificate]
        self._workers.acquire_shared()
        try:
            self.supervisor = ProxySupervisor(arguments, on_lost)
        except ProxyError as error:
            self._workers.release()
            raise ProxyError(f"{PUBLIC_ADDRESS} {public} cannot be opened: {error}") from error

    def close(self) -> None:
        """Accept no new connections; requests in progress still get their responses."""
        self.supervisor.release()
        self._workers.release()
        # Another worker may have started the process that has the port.
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(self._port.read()), signal.SIGTERM)


def start_proxy(environment: Mapping[str, str], limits: Limits) -> Proxy | None:
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
    # TorchServe is the parent process of its workers.
    server = os.getppid()
    return Proxy(
        public,
        f"{upstream.hostname}:{upstream.port}",
        Path(tempfile.gettempdir(), f"d2serve-{server}"),
        limits,
        [environment[name] for name in (CERTIFICATE, KEY) if name in environment],
        lambda: stop_server(server),
    )


def stop_server(server: int) -> None:
    """Stop TorchServe, which no client can reach any more, so that its supervisor notices."""
    if os.getppid() == server:  # otherwise it has exited, and its process id may have been reused
        os.kill(server, signal.SIGTERM)
