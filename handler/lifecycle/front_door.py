"""The public port of a server whose own port only this machine can reach."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from handler.lifecycle import relay

PUBLIC_ADDRESS = "D2SERVE_PUBLIC_ADDRESS"
SERVER_ADDRESS = "TS_INFERENCE_ADDRESS"
EXAMPLE = f"{PUBLIC_ADDRESS}=0.0.0.0:8080 with {SERVER_ADDRESS}=http://127.0.0.1:8081"


class FrontDoorError(RuntimeError):
    """The public port cannot be opened."""


class FrontDoor:
    """Listens on the public address for as long as this worker lives, and relays to the server.

    TorchServe's /ping says Healthy while its workers still load, and for five minutes while they
    cannot. Behind a front door nobody hears that: it opens when a worker has loaded its model.
    Each worker has one of its own (SO_REUSEPORT), so that the port is open while any of them is.
    """

    def __init__(self, public: str, upstream: str) -> None:
        """Opens the port; addresses are `host:port`.

        Raises:
            FrontDoorError: the port cannot be opened.
        """
        # The relay ends with the pipe, and the pipe with this process, however that ends.
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(Path(relay.__file__)), public, upstream],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout
        if self.process.stdout.readline() != relay.READY:
            self.process.communicate()
            raise FrontDoorError(f"{PUBLIC_ADDRESS} {public} cannot be opened; see the log above")

    def close(self) -> None:
        """Takes no new connections; those that are open stay until one side ends them."""
        assert self.process.stdin
        self.process.stdin.close()


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
    return FrontDoor(public, f"{upstream.hostname}:{upstream.port}")
