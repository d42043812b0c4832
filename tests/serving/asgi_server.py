"""Run `d2serve serve` with the ASGI server or Ray Serve as a child process."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.launcher.server import CONSOLE, MODEL, ServerLogs
from tests.environment import clean_environment

READY_WITHIN_S = 300
GRACE_S = 30
# Part of the command line of the process that runs the model.
SERVER_PROCESS = "d2serve.servers.asgi.process"


@dataclass(frozen=True)
class AsgiServer:
    """A running `d2serve serve`, which supervises the process that runs the model.

    Attributes:
        port: of HTTP on the loopback interface.
        logs: the output is in MODEL, and what the command prints in CONSOLE.
        process: the command.
        model_name: name of the model.
        ready_route: succeeds when the model is loaded.
    """

    port: int
    logs: ServerLogs
    process: "subprocess.Popen[bytes]"
    model_name: str
    ready_route: str = "/ping"

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://{LOOPBACK}:{self.port}"

    def is_ready(self) -> bool:
        """Return whether the model is loaded.

        Raises:
            AssertionError: the command has ended.
        """
        assert self.process.poll() is None, self.logs.tail()
        try:
            return httpx.get(self.url + self.ready_route, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def wait_until_ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Return when the model is loaded.

        Raises:
            AssertionError: the command has ended, or the timeout has expired.
        """
        polling = Retrying(
            stop=stop_after_delay(within_s),
            wait=wait_fixed(0.05),
            retry=retry_if_result(lambda ready: not ready),
        )
        try:
            polling(self.is_ready)
        except RetryError:
            raise AssertionError(f"not ready within {within_s:g} s\n{self.logs.tail()}") from None

    def stop(self) -> None:
        """Stop the server, and return when it has completed the requests in progress."""
        self.process.terminate()
        self.process.wait()


@contextmanager
def running_asgi_server(
    model: Path,
    *,
    log_dir: Path,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    server: str = "asgi",
    python: Path = Path(sys.executable),
) -> Iterator[AsgiServer]:
    """Run the command while the `with` block runs, without waiting until it is ready.

    Args:
        model: an archive, or a folder with its content.
        log_dir: folder for the output.
        environment: further variables.
        arguments: further options of the command.
        server: `asgi`, or `ray` with the Python of an environment that has Ray.
        python: the Python that runs the command.
    """
    logs, port = ServerLogs(log_dir), Ports.free().inference
    command = [str(python), "-m", "d2serve.cli.main", "serve", str(model), "--server", server]
    with (logs.folder / MODEL).open("ab") as output, (logs.folder / CONSOLE).open("ab") as console:
        process = subprocess.Popen(
            [*command, "--port", str(port), *arguments],
            cwd=logs.folder,
            env={**clean_environment(), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield AsgiServer(port, logs, process, model.name.removesuffix(".mar"))
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Stop the command and its children; kill what remains."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(True)]
    except psutil.NoSuchProcess:
        family = []
    if process.poll() is None:
        process.terminate()
    _, alive = psutil.wait_procs(family, GRACE_S)
    for member in alive:
        member.kill()
    process.wait()
