"""AWS's PyTorch inference container without Docker."""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from d2serve.errors import CommandError
from d2serve.servers.torchserve.launcher.config import REPOSITORY
from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.launcher.processes import (
    end_process_group,
    find_java,
    temporary_home,
    wait_for,
)
from d2serve.servers.torchserve.launcher.server import CONSOLE, ServerLogs
from d2serve.servers.torchserve.proxy.proxy import PUBLIC_ADDRESS

ENVIRONMENT = REPOSITORY / ".venv-container"
ENTRYPOINT = Path(__file__).with_name("container") / "entrypoint.py"
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
LOAD_TIMEOUT_S = 300
# Where a container has its models.
BASE_DIR = "/opt/ml"
# The name that the toolkit gives to a single model.
SINGLE_MODEL = "model"


class ContainerError(CommandError):
    """The container could not start, or went away."""


@dataclass(frozen=True)
class Container:
    """A running container."""

    ports: Ports
    home: Path
    logs: ServerLogs
    process: subprocess.Popen[bytes]
    model_name: str = SINGLE_MODEL

    @property
    def url(self) -> str:
        """What SageMaker calls port 8080."""
        return f"http://{LOOPBACK}:{self.ports.inference}"

    @property
    def management_url(self) -> str:
        """TorchServe's own port where it is behind a front door: not open to others there."""
        return f"http://{LOOPBACK}:{self.ports.management}"

    @property
    def models(self) -> Path:
        """Where a multi-model endpoint puts the models that it loads."""
        return self.home / "ml" / "models"

    def is_healthy(self) -> bool:
        """What SageMaker asks before it sends a request."""
        try:
            return httpx.get(f"{self.url}/ping", timeout=2, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def wait_until_healthy(self, within_s: float) -> None:
        """Returns once SageMaker would call the endpoint InService.

        Raises:
            ContainerError: it ended, or was not healthy in time.
        """
        polling = Retrying(
            stop=stop_after_delay(within_s),
            wait=wait_fixed(0.1),
            retry=retry_if_result(lambda healthy: not healthy),
        )
        try:
            polling(self._is_healthy_or_raises)
        except RetryError:
            raise self._error(f"was not healthy within {within_s:g} s") from None

    def wait_until_gone(self) -> None:
        """Blocks for as long as the container runs, then raises what happened to it."""
        wait_for(self.process)
        raise self._error("ended on its own")

    def _is_healthy_or_raises(self) -> bool:
        if self.process.poll() is not None:
            raise self._error("ended while it was starting")
        return self.is_healthy()

    def _error(self, what: str) -> ContainerError:
        return ContainerError(
            f"the container {what}; the end of its log:\n\n{self.logs.tail()}\n\n"
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
    """Runs the container while the `with` block does; does not wait until it is healthy.

    Args:
        package: the .tar.gz that SageMaker would unpack to /opt/ml/model; None for a multi-model
            container, which starts without a model and is given them by `load_model`.
        environment: the variables that the SageMaker model gives its container.
        log_dir: receives TorchServe's logs and the container's output.
        ports: free ones where None.

    Raises:
        ContainerError: the container's packages are not installed.
    """
    if not ENVIRONMENT.is_dir():
        raise ContainerError(f"{ENVIRONMENT.name} is missing; `make sagemaker-local` installs it")
    logs = ServerLogs(log_dir)
    with temporary_home() as home:
        own_ports = ports or Ports.free()
        own = container_variables(home, logs.folder)
        if package:
            unpack(package, home / "ml" / "model")
        else:
            _made(home / "ml" / "models")
            own["SAGEMAKER_MULTI_MODEL"] = "true"
        with (logs.folder / CONSOLE).open("ab") as console:
            process = subprocess.Popen(
                [ENVIRONMENT / "bin" / "python", ENTRYPOINT, home],
                cwd=_made(home / "work"),
                env=own | under_home(environment, home) | on_loopback(environment, own_ports),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Container(own_ports, home, logs, process)
        finally:
            end_process_group(process)


def load_model(container: Container, package: Path, name: str) -> None:
    """Loads a package into a multi-model container as SageMaker does; back when it is loaded.

    Raises:
        ContainerError: TorchServe refused it, or it could not be loaded.
    """
    folder = container.models / name / "model"
    unpack(package, folder)
    asked = {"model_name": name, "url": str(folder)}
    answer = httpx.post(
        f"{container.url}/models", json=asked, timeout=LOAD_TIMEOUT_S, trust_env=False
    )
    if answer.is_error:
        raise ContainerError(f"{name} was not loaded: {answer.status_code} {answer.text.strip()}")


def unload_model(container: Container, name: str) -> None:
    """Unloads a model from a multi-model container as SageMaker does.

    Raises:
        ContainerError: it is not loaded.
    """
    url = f"{container.url}/models/{name}"
    answer = httpx.delete(url, timeout=LOAD_TIMEOUT_S, trust_env=False)
    if answer.is_error:
        raise ContainerError(f"{name} was not unloaded: {answer.status_code} {answer.text.strip()}")
    shutil.rmtree(container.models / name)


def unpack(package: Path, folder: Path) -> None:
    """Unpacks a package as SageMaker does: whatever is in it."""
    with tarfile.open(package) as packed:
        packed.extractall(_made(folder), filter="data")


def container_variables(home: Path, log_dir: Path) -> dict[str, str]:
    """The container's own environment: nothing of ours is inherited."""
    java_home = find_java(os.environ).home
    path = f"{ENVIRONMENT / 'bin'}:{java_home / 'bin'}:{SYSTEM_PATH}"
    return {
        "HOME": str(home),
        "PATH": path,
        "JAVA_HOME": str(java_home),
        "TEMP": str(_made(home / "tmp")),
        "TMPDIR": str(home / "tmp"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "SAGEMAKER_BASE_DIR": str(home / "ml"),
        "LOG_LOCATION": str(log_dir),
        "METRICS_LOCATION": str(log_dir),
    }


def under_home(environment: Mapping[str, str], home: Path) -> dict[str, str]:
    """Paths of a container's files, which lie in this home."""
    return {
        name: f"{home / 'ml'}{value.removeprefix(BASE_DIR)}"
        if value.startswith(f"{BASE_DIR}/")
        else value
        for name, value in environment.items()
    }


def on_loopback(environment: Mapping[str, str], ports: Ports) -> dict[str, str]:
    """Where to listen: a container has its ports to itself, and shows them on all addresses.

    Here they are `ports`, on this machine alone. The inference port is what SageMaker calls 8080;
    behind a front door TorchServe itself listens on the management port.
    """
    behind_a_door = PUBLIC_ADDRESS in environment
    own_port = ports.management if behind_a_door else ports.inference
    listening = ports.as_properties() | {
        f"{api}_address": f"http://{LOOPBACK}:{own_port}" for api in ("inference", "management")
    }
    door = {PUBLIC_ADDRESS: f"{LOOPBACK}:{ports.inference}"} if behind_a_door else {}
    return door | {f"TS_{name.upper()}": value for name, value in listening.items()}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
