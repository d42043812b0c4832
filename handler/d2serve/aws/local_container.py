"""AWS's PyTorch inference container without Docker."""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from d2serve.errors import ContainerError
from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.launcher.processes import (
    end_process_group,
    find_java,
    temporary_home,
    wait_for,
)
from d2serve.servers.torchserve.launcher.server import CONSOLE, ServerLogs
from d2serve.servers.torchserve.proxy.proxy import PUBLIC_ADDRESS

ENVIRONMENT = Path(__file__).resolve().parents[3] / ".venv-container"
ENTRYPOINT = Path(__file__).with_name("container") / "entrypoint.py"
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
LOAD_TIMEOUT_S = 300
# SageMaker's folder for models in a container.
BASE_DIR = "/opt/ml"
# The toolkit's name for a single model.
SINGLE_MODEL = "model"


@dataclass(frozen=True)
class Container:
    """A running container.

    Attributes:
        ports: ports on the loopback interface.
        home: the container's temporary folder.
        logs: logs of this run.
        process: the toolkit, which heads a process group.
        model_name: name of the single model.
    """

    ports: Ports
    home: Path
    logs: ServerLogs
    process: subprocess.Popen[bytes]
    model_name: str = SINGLE_MODEL

    @property
    def url(self) -> str:
        """URL of the port that SageMaker knows as 8080."""
        return f"http://{LOOPBACK}:{self.ports.inference}"

    @property
    def management_url(self) -> str:
        """URL of TorchServe's own port behind the proxy, which SageMaker cannot reach."""
        return f"http://{LOOPBACK}:{self.ports.management}"

    @property
    def models(self) -> Path:
        """Folder for the models of a multi-model endpoint."""
        return self.home / "ml" / "models"

    def is_healthy(self) -> bool:
        """Return whether SageMaker's health check succeeds."""
        try:
            return httpx.get(f"{self.url}/ping", timeout=2, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def wait_until_healthy(self, within_s: float) -> None:
        """Return once SageMaker would report the endpoint as InService.

        Raises:
            ContainerError: the container ended, or was not healthy within `within_s` seconds.
        """
        polling = Retrying(
            stop=stop_after_delay(within_s),
            wait=wait_fixed(0.1),
            retry=retry_if_result(lambda healthy: not healthy),
        )
        try:
            polling(self._check_health)
        except RetryError:
            raise self._error(f"was not healthy within {within_s:g} s") from None

    def wait_for_exit(self) -> None:
        """Block while the container runs, then raise ContainerError with the end of its log."""
        wait_for(self.process)
        raise self._error("ended unexpectedly")

    def _check_health(self) -> bool:
        if self.process.poll() is not None:
            raise self._error("ended during its start")
        return self.is_healthy()

    def _error(self, reason: str) -> ContainerError:
        return ContainerError(
            f"the container {reason}; the end of its log:\n\n{self.logs.tail()}\n\n"
            f"All of its logs are in {self.logs.folder}"
        )


@contextmanager
def running_container(
    package: Path | None,
    environment: Mapping[str, str],
    *,
    log_dir: Path,
    ports: Ports | None = None,
) -> Iterator[Container]:
    """Run the container while the `with` block runs, without waiting until it is healthy.

    Args:
        package: the .tar.gz that SageMaker would unpack to /opt/ml/model; None for a multi-model
            container, which starts without models and receives them from `load_model`.
        environment: variables of the SageMaker model.
        log_dir: receives TorchServe's logs and the container's output.
        ports: free ports if None.

    Raises:
        ContainerError: the container's packages are not installed.
    """
    if not ENVIRONMENT.is_dir():
        raise ContainerError(
            f"{ENVIRONMENT.name} is missing; `make sagemaker-local CONTAINER=pytorch` installs it"
        )
    logs = ServerLogs(log_dir)
    with temporary_home() as home:
        own_ports = ports or Ports.free()
        variables = container_variables(home, logs.folder)
        if package:
            unpack(package, home / "ml" / "model")
        else:
            _make_folder(home / "ml" / "models")
            variables["SAGEMAKER_MULTI_MODEL"] = "true"
        variables |= under_home(environment, home) | on_loopback(environment, own_ports)
        words = [str(ENVIRONMENT / "bin" / "python"), str(ENTRYPOINT), str(home)]
        process = start_entrypoint(words, _make_folder(home / "work"), variables, logs)
        try:
            yield Container(own_ports, home, logs, process)
        finally:
            end_process_group(process)


def start_entrypoint(
    words: Sequence[str], folder: Path, variables: Mapping[str, str], logs: ServerLogs
) -> "subprocess.Popen[bytes]":
    """Start the process of a container, as the leader of a session of its own.

    Args:
        words: the command line.
        folder: its working directory.
        variables: its whole environment.
        logs: the console receives its output.
    """
    with (logs.folder / CONSOLE).open("ab") as console:
        return subprocess.Popen(
            words,
            cwd=folder,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def load_model(container: Container, package: Path, name: str) -> None:
    """Load a package into a multi-model container as SageMaker does.

    Raises:
        ContainerError: TorchServe rejected the request, or could not load the model.
    """
    folder = container.models / name / "model"
    unpack(package, folder)
    response = httpx.post(
        f"{container.url}/models",
        json={"model_name": name, "url": str(folder)},
        timeout=LOAD_TIMEOUT_S,
        trust_env=False,
    )
    if response.is_error:
        raise ContainerError(f"cannot load {name}: {response.status_code} {response.text.strip()}")


def unload_model(container: Container, name: str) -> None:
    """Unload a model from a multi-model container as SageMaker does.

    Raises:
        ContainerError: the model is not loaded.
    """
    url = f"{container.url}/models/{name}"
    response = httpx.delete(url, timeout=LOAD_TIMEOUT_S, trust_env=False)
    if response.is_error:
        raise ContainerError(
            f"cannot unload {name}: {response.status_code} {response.text.strip()}"
        )
    shutil.rmtree(container.models / name)


def unpack(package: Path, folder: Path) -> None:
    """Unpack a package as SageMaker does, without checking its content."""
    with tarfile.open(package) as packed:
        packed.extractall(_make_folder(folder), filter="data")


def container_variables(home: Path, log_dir: Path) -> dict[str, str]:
    """Return the container's environment, which inherits nothing from this process."""
    java_home = find_java(os.environ).home
    path = f"{ENVIRONMENT / 'bin'}:{java_home / 'bin'}:{SYSTEM_PATH}"
    return {
        "HOME": str(home),
        "PATH": path,
        "JAVA_HOME": str(java_home),
        "TEMP": str(_make_folder(home / "tmp")),
        "TMPDIR": str(home / "tmp"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "SAGEMAKER_BASE_DIR": str(home / "ml"),
        "LOG_LOCATION": str(log_dir),
        "METRICS_LOCATION": str(log_dir),
    }


def under_home(environment: Mapping[str, str], home: Path) -> dict[str, str]:
    """Replace /opt/ml at the start of values by its counterpart in the temporary folder."""
    return {
        name: f"{home / 'ml'}{value.removeprefix(BASE_DIR)}"
        if value.startswith(f"{BASE_DIR}/")
        else value
        for name, value in environment.items()
    }


def on_loopback(environment: Mapping[str, str], ports: Ports) -> dict[str, str]:
    """Return the variables that make the container listen on `ports` of the loopback interface.

    A real container listens on all of its own addresses. The inference port stands for
    SageMaker's 8080; behind the proxy TorchServe itself listens on the management port.
    """
    behind_proxy = PUBLIC_ADDRESS in environment
    own_port = ports.management if behind_proxy else ports.inference
    listening = ports.as_properties() | {
        f"{api}_address": f"http://{LOOPBACK}:{own_port}" for api in ("inference", "management")
    }
    proxy = {PUBLIC_ADDRESS: f"{LOOPBACK}:{ports.inference}"} if behind_proxy else {}
    return proxy | {f"TS_{name.upper()}": value for name, value in listening.items()}


def _make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
