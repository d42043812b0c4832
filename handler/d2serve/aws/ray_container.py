"""AWS's Ray container for SageMaker without Docker."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from d2serve.aws.local_container import SYSTEM_PATH, Container, start_entrypoint, unpack
from d2serve.errors import ContainerError
from d2serve.servers.sagemaker.watchdog import PORT_VARIABLE
from d2serve.servers.torchserve.launcher.ports import Ports
from d2serve.servers.torchserve.launcher.processes import temporary_home
from d2serve.servers.torchserve.launcher.server import ServerLogs

ENVIRONMENT = Path(__file__).resolve().parents[3] / ".venv-ray"
ENTRYPOINT = Path(__file__).with_name("container") / "ray_entrypoint.py"
KILL_WITHIN_S = 1.0


@contextmanager
def running_ray_container(
    package: Path,
    environment: Mapping[str, str],
    *,
    log_dir: Path,
    ports: Ports | None = None,
) -> Iterator[Container]:
    """Run the container while the `with` block runs, without waiting until it is healthy.

    Args:
        package: the .tar.gz that SageMaker would unpack to /opt/ml/model.
        environment: variables of the SageMaker model.
        log_dir: receives the container's output.
        ports: free ports if None. `inference` is SageMaker's, `management` that of Ray Serve.

    Raises:
        ContainerError: the container's packages are not installed.
    """
    if not ENVIRONMENT.is_dir():
        raise ContainerError(
            f"{ENVIRONMENT.name} is missing; `make sagemaker-local CONTAINER=ray` installs it"
        )
    logs = ServerLogs(log_dir)
    with temporary_home() as home:
        own_ports = ports or Ports.free()
        model_dir = home / "ml" / "model"
        unpack(package, model_dir)
        (home / "tmp").mkdir()
        options = {
            "model_dir": str(model_dir),
            "temp_dir": str(home / "ray"),
            "ports": {
                "adapter": own_ports.inference,
                "serve": own_ports.management,
                "agent": own_ports.metrics,
                "gcs": own_ports.grpc_inference,
                "client": own_ports.grpc_management,
            },
        }
        variables = container_variables(home, model_dir, own_ports) | dict(environment)
        words = [str(ENVIRONMENT / "bin" / "python"), str(ENTRYPOINT), json.dumps(options)]
        process = start_entrypoint(words, home, variables, logs)
        try:
            yield Container(own_ports, home, logs, process)
        finally:
            end_session(process)


def container_variables(home: Path, model_dir: Path, ports: Ports) -> dict[str, str]:
    """Return the container's environment, which inherits nothing from this process."""
    return {
        "HOME": str(home),
        "PATH": f"{ENVIRONMENT / 'bin'}:{SYSTEM_PATH}",
        "PYTHONPATH": f"{model_dir}:{model_dir / 'code'}",
        "PYTHONUNBUFFERED": "1",
        "LANG": "C.UTF-8",
        "TMPDIR": str(home / "tmp"),
        "SM_MODEL_DIR": str(model_dir),
        PORT_VARIABLE: str(ports.inference),
    }


def end_session(leader: "subprocess.Popen[bytes]") -> None:
    """Kill the processes of the session that `leader` heads, as the end of a container does.

    Ray's processes have process groups of their own, and outlive those that started them.
    """
    while members := session_members(leader.pid):
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(members, KILL_WITHIN_S)
    leader.wait()


def session_members(session: int) -> list[psutil.Process]:
    """The living processes of a session."""
    return [process for process in psutil.process_iter() if _is_member(session, process)]


def _is_member(session: int, process: psutil.Process) -> bool:
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False
