"""The public port of a server whose own port is on loopback."""

import json
import os
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

from d2serve.servers.torchserve.proxy import process as relay_process
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.shared_files import Departures, FileLock
from d2serve.servers.torchserve.proxy.supervisor import KeptRelay, RelayError

PUBLIC_ADDRESS = "D2SERVE_PUBLIC_ADDRESS"
SERVER_ADDRESS = "TS_INFERENCE_ADDRESS"
# PEM files; with them the public port speaks TLS, and TorchServe's own need not.
CERTIFICATE = "D2SERVE_CERTIFICATE"
KEY = "D2SERVE_CERTIFICATE_KEY"
NO_BOUNDS_GIVEN = Limits()
EXAMPLE = f"{PUBLIC_ADDRESS}=0.0.0.0:8080 with {SERVER_ADDRESS}=http://127.0.0.1:8081"


class FrontDoorError(RuntimeError):
    """The public port cannot be opened."""


class FrontDoor:
    """Opens the public address when this worker is ready, and relays from there to the server.

    TorchServe's /ping says Healthy while its workers still load, and for five minutes while they
    cannot. Behind a front door nobody hears that: it opens when the first worker has loaded its
    model, and says that it is not ready while there is none, see `d2serve.servers.torchserve.proxy.process`.

    Attributes:
        departures: which clients have hung up.
        relay: the process that this worker has started.
    """

    def __init__(
        self,
        public: str,
        upstream: str,
        state: Path,
        limits: Limits = NO_BOUNDS_GIVEN,
        certificate: Sequence[str] = (),
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Says that this worker is ready and opens the port, where none has yet.

        Args:
            public: `host:port` to listen on.
            upstream: `host:port` of TorchServe.
            state: a path that the workers of one TorchServe share, to whose name they add endings.
            limits: what clients may take.
            certificate: PEM files of the certificate with its chain and of its key, for TLS.
            on_lost: called when the relay has ended, by itself or another's hand, and the port
                cannot be opened again.

        Raises:
            FrontDoorError: the port cannot be opened.
        """
        try:
            self._presence = FileLock(relay_process.presence_file(state))
            self._port = FileLock(relay_process.port_file(state))
            self.departures = Departures(relay_process.departures_file(state))
        except OSError as error:
            raise FrontDoorError(f"the front door cannot keep its state: {error}") from error
        bounds = json.dumps(asdict(limits))
        self._presence.share()
        try:
            self.relay = KeptRelay([public, upstream, str(state), bounds, *certificate], on_lost)
        except RelayError as error:
            self._presence.release()
            raise FrontDoorError(f"{PUBLIC_ADDRESS} {public} cannot be opened: {error}") from error

    def close(self) -> None:
        """Lets no new connections in; requests that are here are answered."""
        self.relay.let_go()
        self._presence.release()
        # The relay that has the port may have been started by another worker.
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(self._port.read()), signal.SIGTERM)


def open_front_door(environment: Mapping[str, str], limits: Limits) -> FrontDoor | None:
    """Opens the door that the environment asks for; None if it asks for none.

    Raises:
        FrontDoorError: the variables do not fit together, or the port cannot be opened.
    """
    public = environment.get(PUBLIC_ADDRESS)
    if not public:
        return None
    upstream = urlsplit(environment.get(SERVER_ADDRESS, ""))
    if not upstream.hostname or not upstream.port:
        raise FrontDoorError(f"{PUBLIC_ADDRESS} needs {SERVER_ADDRESS} too, e.g. {EXAMPLE}")
    # TorchServe is the parent of its workers.
    server = os.getppid()
    state = Path(tempfile.gettempdir(), f"d2serve-{server}")
    certificate = [environment[name] for name in (CERTIFICATE, KEY) if name in environment]
    address = f"{upstream.hostname}:{upstream.port}"
    return FrontDoor(public, address, state, limits, certificate, lambda: end_server(server))


def end_server(server: int) -> None:
    """Tells TorchServe to stop: nobody can reach it, and whoever started it shall hear of it."""
    if os.getppid() == server:  # else it has gone, and its number may be another's
        os.kill(server, signal.SIGTERM)
