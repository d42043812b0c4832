"""AWS's Ray container: its routes, a model that cannot load, dead replicas, and its end."""

import tarfile
from pathlib import Path

import httpx
import psutil

from d2serve.aws.local_container import Container
from d2serve.aws.ray_container import running_ray_container, session_members
from d2serve.servers.sagemaker.application import REPLICAS_VARIABLE
from d2serve.servers.sagemaker.watchdog import SECONDS_VARIABLE
from d2serve.servers.torchserve.launcher.server import CONSOLE
from tests.polling import wait_until
from tests.serving.served import connections_of, workers_of

WITHIN_S, POLL_S = 300, 0.2
# What a shell reports of a process that SIGTERM has ended.
TERMINATED = 143


def test_a_container_whose_model_cannot_load_is_never_healthy(
    ray_package: Path, tmp_path: Path
) -> None:
    package = with_broken_weights(ray_package, tmp_path)
    with running_ray_container(package, {}, log_dir=tmp_path / "logs") as container:
        wait_for("changed 'model/weights.pt'", container)
        health = f"http://127.0.0.1:{container.ports.management}/-/healthz"
        assert httpx.get(health, timeout=WITHIN_S, trust_env=False).status_code == 503
        assert not container.is_healthy()


def test_a_container_ends_with_its_last_replica(
    ray_package: Path, jpeg: Path, tmp_path: Path
) -> None:
    environment = {REPLICAS_VARIABLE: "2", SECONDS_VARIABLE: "2"}
    with running_ray_container(ray_package, environment, log_dir=tmp_path) as container:
        container.wait_until_healthy(WITHIN_S)
        replicas = wait_for_replicas(2, container)
        assert members_outside(container) == []
        replicas[0].kill()
        # The other one serves, and keeps the container for longer than the watchdog waits.
        replacement = [each for each in wait_for_replicas(2, container) if each not in replicas]
        assert len(replacement) == 1
        response = httpx.post(
            f"{container.url}/invocations",
            content=jpeg.read_bytes(),
            timeout=WITHIN_S,
            trust_env=False,
        )
        assert response.status_code == 200, response.text
        assert response.json()["names"]
        for replica in workers_of(container):
            replica.kill()
        assert container.process.wait(WITHIN_S) == TERMINATED
        assert not container.is_healthy()
        assert session_members(container.process.pid), "Ray outlives the adapter"
    assert session_members(container.process.pid) == []


def with_broken_weights(package: Path, folder: Path) -> Path:
    """A copy of a package whose weights have changed."""
    with tarfile.open(package) as packed:
        packed.extractall(folder / "package", filter="data")
    weights = folder / "package" / "model" / "model" / "weights.pt"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    broken = folder / "broken.tar.gz"
    with tarfile.open(broken, "w:gz") as packed:
        for entry in (folder / "package").iterdir():
            packed.add(entry, entry.name)
    return broken


def wait_for(text: str, container: Container) -> None:
    """Return when the container's output has a text."""
    wait_until(lambda: text in container.logs.text(CONSOLE), WITHIN_S, POLL_S)


def wait_for_replicas(count: int, container: Container) -> list[psutil.Process]:
    """Return when as many replicas are ready, which hold the watchdog's lock."""
    lock = str(container.home / "tmp" / "d2serve-replicas.lock")

    def ready() -> list[psutil.Process]:
        found = [each for each in workers_of(container) if lock in open_files(each)]
        return found if len(found) == count else []

    return wait_until(ready, WITHIN_S, POLL_S)


def open_files(process: psutil.Process) -> set[str]:
    try:
        return {file.path for file in process.open_files()}
    except psutil.Error:
        return set()


def members_outside(container: Container) -> list[str]:
    """The container's TCP servers outside the loopback interface, except those of Ray itself."""
    listening = [
        connection.laddr
        for member in session_members(container.process.pid)
        if "adapter" in " ".join(member.cmdline()) or "ProxyActor" in " ".join(member.cmdline())
        for connection in connections_of(member)
        if connection.status == psutil.CONN_LISTEN
    ]
    ports = {container.ports.inference, container.ports.management}
    return [
        address.ip for address in listening if address.port in ports and address.ip != "127.0.0.1"
    ]
