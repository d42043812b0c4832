"""Run TorchServe as a child process."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from d2serve.errors import CommandError
from d2serve.servers.torchserve.draining import GRPC_PORT
from d2serve.servers.torchserve.launcher.config import (
    CONFIG,
    THIS_MACHINE,
    door_environment,
    server_environment,
    server_properties,
    write_properties,
)
from d2serve.servers.torchserve.launcher.network import (
    KEY_FILE,
    Exposure,
    authorization,
    read_token,
)
from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.launcher.processes import (
    end_process_group,
    find_java,
    link_into_store,
    temporary_home,
    wait_for,
)

CONSOLE = "console.log"
SERVER = "ts_log.log"
MODEL = "model_log.log"
REQUESTS = "requests.log"


class ServerLogs:
    """What this run adds to the log files of a folder, which earlier runs may have written too."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self._starts = {log.name: log.stat().st_size for log in self.folder.glob("*.log")}

    def text(self, name: str) -> str:
        """What this run has written to the log of that name."""
        log = self.folder / name
        if not log.exists():
            return ""
        content = log.read_bytes()
        start = self._starts.get(name, 0)
        # A log smaller than it was has been rolled over, so all of it is new.
        return content[start if start <= len(content) else 0 :].decode(errors="replace")

    def tail(self, lines: int = 30) -> str:
        """The end of the log closest to the model that says anything."""
        texts = (self.text(name) for name in (MODEL, SERVER, CONSOLE))
        telling = next((text for text in texts if text.strip()), "(the logs are empty)")
        return "\n".join(telling.splitlines()[-lines:])


LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
# TorchServe logs these and goes on: with no model, with default settings, or with a worker that
# it starts again and again.
SIGNS_OF_FAILURE = {
    "Failed to load model": "could not read the archive",
    "Failed to parse model config file": "could not read the archive's model-config.yaml",
    "Retry worker:": "has a worker that died while it was loading",
}


class ServerError(CommandError):
    """TorchServe could not start, or went away."""


@dataclass(frozen=True)
class Server:
    """A running TorchServe that serves one model."""

    model_name: str
    ports: Ports
    logs: ServerLogs
    process: subprocess.Popen[bytes]
    exposure: Exposure
    key_file: Path

    @property
    def url(self) -> str:
        """The inference API as this machine reaches it, without a path."""
        return f"{self.exposure.scheme}://{self.exposure.host}:{self.ports.inference}"

    @property
    def management_url(self) -> str:
        """The management API, without a path."""
        return f"http://{LOOPBACK}:{self.ports.management}"

    def wait_until_ready(self, within_s: float) -> None:
        """Return once every worker has loaded the model; raise as soon as one cannot."""
        polling = Retrying(
            stop=stop_after_delay(within_s),
            wait=wait_fixed(0.1),
            retry=retry_if_result(lambda ready: not ready),
        )
        try:
            polling(self._is_ready)
        except RetryError:
            raise self._error(f"was not ready within {within_s:g} s") from None

    def wait_until_gone(self) -> None:
        """Block for as long as the server runs, then raise what happened to it."""
        wait_for(self.process)
        raise self._error("ended on its own")

    def stop(self) -> None:
        """Ask TorchServe to end, and return when it has: when what runs has been answered."""
        # Its launcher, which heads the group, would die of a SIGTERM and not pass it on.
        for torchserve in psutil.Process(self.process.pid).children():
            torchserve.terminate()
        self.process.wait()

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise self._error("ended while it was starting")
        server_log = self.logs.text(SERVER)
        for sign, failure in SIGNS_OF_FAILURE.items():
            if sign in server_log:
                raise self._error(failure)
        token = read_token(self.key_file, "management") if self.exposure.needs_token else None
        url = f"{self.management_url}/models/{self.model_name}"
        try:
            answer = httpx.get(url, headers=authorization(token), trust_env=False)
        except httpx.TransportError:
            return False
        if answer.is_error:
            return False
        [model] = answer.json()
        ready = sum(worker["status"] == "READY" for worker in model["workers"])
        return ready >= max(1, model["minWorkers"])

    def _error(self, what: str) -> ServerError:
        return ServerError(
            f"TorchServe, serving {self.model_name}, {what}; the end of its log:\n\n"
            f"{self.logs.tail()}\n\nAll of its logs are in {self.logs.folder}"
        )


@contextmanager
def running_server(
    model: Path,
    *,
    log_dir: Path,
    ports: Ports | None = None,
    exposure: Exposure = THIS_MACHINE,
    ready_within_s: float = 180,
    front_door: bool = False,
) -> Iterator[Server]:
    """Serve `model` (a .mar, or a folder with the same content) while the `with` block runs.

    The server has its own ports, logs and temporary folder (there TorchServe keeps its pid file,
    sockets and tokens, and unpacks archives), so that any number of them can run side by side.
    With a front door, the worker opens the inference port, where `exposure` says, and TorchServe
    has another one; without, nobody but this machine can send requests.
    """
    _check_archive(model)
    java_home = find_java().home
    logs = ServerLogs(log_dir)
    with temporary_home() as home:
        server_ports = ports or Ports.free()
        inner = server_ports.behind_a_door() if front_door else server_ports
        write_properties(home / CONFIG.name, server_properties(inner, exposure))
        link = link_into_store(model, home)
        with (logs.folder / CONSOLE).open("ab") as console:
            process = subprocess.Popen(
                _command(home, link),
                cwd=home,
                env=server_environment(os.environ, home, java_home, logs.folder)
                | {GRPC_PORT: str(server_ports.grpc_inference)}
                | (door_environment(server_ports, inner, exposure) if front_door else {}),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            key_file = home / KEY_FILE
            server = Server(link.stem, server_ports, logs, process, exposure, key_file)
            server.wait_until_ready(ready_within_s)
            yield server
        finally:
            end_process_group(process)


def _check_archive(model: Path) -> None:
    if not model.exists():
        raise ServerError(f"{model} does not exist; `make archive` builds one")
    if model.is_file() and not zipfile.is_zipfile(model):
        raise ServerError(f"{model} is not an archive; `make archive` builds one")


def _command(home: Path, model: Path) -> list[str]:
    # -I: neither the working folder nor PYTHONPATH decides which `ts` runs.
    return [
        *(sys.executable, "-I", "-m", "ts.model_server", "--start", "--foreground"),
        *("--ncs", "--ts-config", str(home / CONFIG.name), "--log-config", str(LOG_CONFIG)),
        *("--model-store", str(model.parent), "--models", f"{model.stem}={model}"),
    ]
