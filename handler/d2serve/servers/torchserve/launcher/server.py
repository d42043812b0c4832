"""Run TorchServe as a child process."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from d2serve.errors import ServerError
from d2serve.servers.torchserve.draining import GRPC_PORT
from d2serve.servers.torchserve.launcher import missing_package
from d2serve.servers.torchserve.launcher.config import (
    CONFIG_FILE,
    LOCAL_EXPOSURE,
    proxy_environment,
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
    terminate_children,
    wait_for,
)

LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
# Log files.
CONSOLE = "console.log"
SERVER = "ts_log.log"
MODEL = "model_log.log"
REQUESTS = "requests.log"
# TorchServe logs these and continues: without a model, with default settings, or restarting a
# worker that fails again and again.
START_FAILURES = {
    "Failed to load model": "could not read the archive",
    "Failed to parse model config file": "could not read the archive's model-config.yaml",
    "Retry worker:": "has a worker that exited while loading",
}


@contextmanager
def running_server(
    model: Path,
    *,
    log_dir: Path,
    ports: Ports | None = None,
    exposure: Exposure = LOCAL_EXPOSURE,
    ready_within_s: float = 180,
    with_proxy: bool = False,
) -> Iterator["Server"]:
    """Serve a model while the `with` block runs.

    The server has its own ports, logs and temporary folder, in which TorchServe keeps its pid file,
    sockets and tokens, and unpacks archives. Any number of servers can run at the same time.

    Args:
        model: a .mar file, or a folder with the same content.
        log_dir: the folder for the log files.
        ports: by default free ones.
        exposure: the addresses to listen on. Those other than loopback require the proxy.
        ready_within_s: timeout for the start.
        with_proxy: whether a worker opens the inference port when it is ready, in front of
            TorchServe, which listens on another port.

    Raises:
        ServerError: the model cannot be served, or the server did not start.
        CommandError: TorchServe or Java is not installed.
    """
    if find_spec("ts") is None:
        raise missing_package("torchserve")
    _check_archive(model)
    java_home = find_java().home
    logs = ServerLogs(log_dir)
    with temporary_home() as home:
        public = ports or Ports.free()
        internal = public.behind_proxy() if with_proxy else public
        write_properties(home / CONFIG_FILE.name, server_properties(internal, exposure))
        link = link_into_store(model, home)
        with (logs.folder / CONSOLE).open("ab") as console:
            process = subprocess.Popen(
                _command(home, link),
                cwd=home,
                env=server_environment(os.environ, home, java_home, logs.folder)
                | {GRPC_PORT: str(public.grpc_inference)}
                | (proxy_environment(public, internal, exposure) if with_proxy else {}),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            server = Server(link.stem, public, logs, process, exposure, home / KEY_FILE)
            server.wait_until_ready(ready_within_s)
            yield server
        finally:
            end_process_group(process)


@dataclass(frozen=True)
class Server:
    """A running TorchServe that serves one model."""

    model_name: str
    ports: Ports
    logs: "ServerLogs"
    process: subprocess.Popen[bytes]
    exposure: Exposure
    key_file: Path

    @property
    def url(self) -> str:
        """Base URL of the inference API, from this machine."""
        return f"{self.exposure.scheme}://{self.exposure.host}:{self.ports.inference}"

    @property
    def management_url(self) -> str:
        """Base URL of the management API."""
        return f"http://{LOOPBACK}:{self.ports.management}"

    def wait_until_ready(self, timeout_s: float) -> None:
        """Return when every worker has loaded the model.

        Raises:
            ServerError: a worker cannot load it, or the timeout expired.
        """
        polling = Retrying(
            stop=stop_after_delay(timeout_s),
            wait=wait_fixed(0.1),
            retry=retry_if_result(lambda ready: not ready),
        )
        try:
            polling(self._is_ready)
        except RetryError:
            raise self._error(f"was not ready within {timeout_s:g} s") from None

    def wait_for_exit(self) -> None:
        """Block while the server runs, then raise a ServerError with the end of its log."""
        wait_for(self.process)
        raise self._error("exited unexpectedly")

    def stop(self) -> None:
        """Stop TorchServe and return when it has exited, after the requests in progress."""
        # Its Python launcher, which heads the group, would die of a SIGTERM without forwarding it.
        terminate_children(self.process)
        self.process.wait()

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise self._error("exited while starting")
        server_log = self.logs.text(SERVER)
        for sign, failure in START_FAILURES.items():
            if sign in server_log:
                raise self._error(failure)
        token = read_token(self.key_file, "management") if self.exposure.needs_token else None
        url = f"{self.management_url}/models/{self.model_name}"
        try:
            response = httpx.get(url, headers=authorization(token), trust_env=False)
        except httpx.TransportError:
            return False
        if response.is_error:
            return False
        [model] = response.json()
        ready = sum(worker["status"] == "READY" for worker in model["workers"])
        return ready >= max(1, model["minWorkers"])

    def _error(self, failure: str) -> ServerError:
        return ServerError(
            f"TorchServe, serving {self.model_name}, {failure}; the end of its log:\n\n"
            f"{self.logs.tail()}\n\nThe complete logs are in {self.logs.folder}"
        )


class ServerLogs:
    """The part of a folder's log files that this run has written, excluding earlier runs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self._starts = {log.name: log.stat().st_size for log in self.folder.glob("*.log")}

    def text(self, name: str) -> str:
        """The text that this run has written to a log file."""
        log = self.folder / name
        if not log.exists():
            return ""
        content = log.read_bytes()
        start = self._starts.get(name, 0)
        # A log smaller than before has been rotated, so all of it is new.
        return content[start if start <= len(content) else 0 :].decode(errors="replace")

    def tail(self, lines: int = 30) -> str:
        """The last lines of the non-empty log that is closest to the model."""
        texts = (self.text(name) for name in (MODEL, SERVER, CONSOLE))
        text = next((text for text in texts if text.strip()), "(the logs are empty)")
        return "\n".join(text.splitlines()[-lines:])


def _check_archive(model: Path) -> None:
    if not model.exists():
        raise ServerError(f"{model} does not exist; build it with `d2serve archive`")
    if model.is_file() and not zipfile.is_zipfile(model):
        raise ServerError(f"{model} is not a model archive; build one with `d2serve archive`")


def _command(home: Path, model: Path) -> list[str]:
    # With -I, neither the working folder nor PYTHONPATH decides which `ts` runs.
    return [
        *(sys.executable, "-I", "-m", "ts.model_server", "--start", "--foreground"),
        *("--ncs", "--ts-config", str(home / CONFIG_FILE.name), "--log-config", str(LOG_CONFIG)),
        *("--model-store", str(model.parent), "--models", f"{model.stem}={model}"),
    ]
