"""The public port of a server whose own port only this machine can reach."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from handler.lifecycle import relay
from handler.lifecycle.locks import FileLock

PUBLIC_ADDRESS = "D2SERVE_PUBLIC_ADDRESS"
SERVER_ADDRESS = "TS_INFERENCE_ADDRESS"
# PEM files; with them the public port speaks TLS, and TorchServe's own need not.
CERTIFICATE = "D2SERVE_CERTIFICATE"
KEY = "D2SERVE_CERTIFICATE_KEY"
PACKAGE = Path(__file__).resolve().parent.parent
# Isolated from whatever lies in the working folder and on PYTHONPATH.
START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from handler.lifecycle.relay import run; run()"
)
EXAMPLE = f"{PUBLIC_ADDRESS}=0.0.0.0:8080 with {SERVER_ADDRESS}=http://127.0.0.1:8081"


class FrontDoorError(RuntimeError):
    """The public port cannot be opened."""


class FrontDoor:
    """Opens the public address when this worker is ready, and relays from there to the server.

    TorchServe's /ping says Healthy while its workers still load, and for five minutes while they
    cannot. Behind a front door nobody hears that: it opens when the first worker has loaded its
    model, and says that it is not ready while there is none, see `handler.lifecycle.relay`.
    """

    def __init__(
        self, public: str, upstream: str, state: Path, certificate: Sequence[str] = ()
    ) -> None:
        """Says that this worker is ready and opens the port, where none has yet.

        Args:
            public: `host:port` to listen on.
            upstream: `host:port` of TorchServe.
            state: a path that the workers of one TorchServe share, to whose name they add endings.
            certificate: PEM files of the certificate with its chain and of its key, for TLS.

        Raises:
            FrontDoorError: the port cannot be opened.
        """
        try:
            self._presence = FileLock(relay.presence_file(state))
            self._port = FileLock(relay.port_file(state))
        except OSError as error:
            raise FrontDoorError(f"the front door cannot keep its state: {error}") from error
        self._presence.share()
        # It may outlive this process, so it must hold no pipe that TorchServe reads to its end.
        command = [sys.executable, "-I", "-c", START, str(PACKAGE.parent)]
        self.process = subprocess.Popen(
            [*command, public, upstream, str(state), *certificate],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self.process.stdout
        said = self.process.stdout.readline()
        if said != relay.READY:
            reason = (said + self.process.communicate()[0]).decode(errors="replace").strip()
            self._presence.release()
            raise FrontDoorError(f"{PUBLIC_ADDRESS} {public} cannot be opened: {reason}")

    def close(self) -> None:
        """Lets no new connections in; those that are open stay until one side ends them."""
        assert self.process.stdin
        self.process.stdin.close()
        self._presence.release()
        # The relay that has the port may have been started by another worker.
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(self._port.read()), signal.SIGTERM)


def open_front_door(environment: Mapping[str, str]) -> FrontDoor | None:
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
    state = Path(tempfile.gettempdir(), f"d2serve-{os.getppid()}")
    certificate = [environment[name] for name in (CERTIFICATE, KEY) if name in environment]
    return FrontDoor(public, f"{upstream.hostname}:{upstream.port}", state, certificate)
