"""The command `d2serve ray-config`: a Serve config, a RayService and a NetworkPolicy."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from d2serve.cli.main import app, invoke
from d2serve.cli.ray_config import DEFAULT_IMAGE
from d2serve.errors import ArchiveError, CommandError
from d2serve.kubernetes.models import Model
from d2serve.kubernetes.ray_service import ENVIRONMENT, RAY_VERSION
from d2serve.kubernetes.scale import Scale
from d2serve.servers.ray.options import ApplicationOptions
from d2serve.settings import Settings
from tests.environment import clean_environment
from tests.kubernetes.manifests import DEPLOY, containers_of, validate
from tests.test_docs_tables import code_in, rows_of

URI = "s3://my-bucket/models/my-model.mar"
FILES = ("serve-config.yaml", "ray-service.yaml", "network-policy.yaml")
# Ports of replicas, and of HAProxy's metrics and statistics.
CLOSED_PORTS = (30000, 31000, 9101, 8404)
CHECK = """
import sys, yaml
from ray.serve.schema import ServeDeploySchema
for text in sys.argv[1:]:
    schema = ServeDeploySchema.model_validate(yaml.safe_load(text))
    print(*(each.name for each in schema.applications))
"""
Written = dict[str, dict[str, Any]]
Write = Callable[..., Written]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def run(*arguments: str) -> Written:
        assert invoke(["ray-config", *arguments, "--output", str(tmp_path / "out")]) == 0
        files = {name: tmp_path / "out" / name for name in FILES}
        return {name: yaml.safe_load(file.read_text()) for name, file in files.items()}

    return run


def config_of(written: Written) -> dict[str, Any]:
    """The Serve config in the RayService."""
    config: dict[str, Any] = yaml.safe_load(written["ray-service.yaml"]["spec"]["serveConfigV2"])
    return config


def cluster_of(written: Written) -> dict[str, Any]:
    cluster: dict[str, Any] = written["ray-service.yaml"]["spec"]["rayClusterConfig"]
    return cluster


def size_of(worker: dict[str, Any]) -> dict[str, Any]:
    (container,) = containers_of(worker)
    limits: dict[str, Any] = container["resources"]["limits"]
    return limits


def test_the_examples_are_the_output_of_the_command(tmp_path: Path) -> None:
    assert (
        invoke(["ray-config", URI, "--token-secret", "d2serve-token", "--output", str(tmp_path)])
        == 0
    )
    for name in FILES:
        assert (DEPLOY / "ray" / name).read_text() == (tmp_path / name).read_text()


def test_ray_accepts_the_serve_config(write: Write, shapes_mar: Path, repo_root: Path) -> None:
    fixed = write(str(shapes_mar))
    scaled = write(URI, str(shapes_mar), *("--min-replicas", "1", "--max-replicas", "3"))
    configs = fixed["serve-config.yaml"], config_of(scaled)
    ended = subprocess.run(
        [repo_root / ".venv-ray/bin/python", "-c", CHECK, *map(yaml.safe_dump, configs)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.splitlines() == ["shapes", "my-model shapes"], ended.stderr


def test_the_application_accepts_its_arguments(write: Write, shapes_mar: Path) -> None:
    (application,) = write(str(shapes_mar))["serve-config.yaml"]["applications"]
    assert application["import_path"] == "d2serve.servers.ray:build"
    assert application["route_prefix"] == "/"
    options = ApplicationOptions.from_args(application["args"])
    assert options.archive == str(shapes_mar)
    assert options.num_replicas == 2


def test_several_models_are_several_applications(write: Write, shapes_mar: Path) -> None:
    written = write(URI, str(shapes_mar), "--min-replicas", "2", "--max-replicas", "5")
    applications = config_of(written)["applications"]
    assert [each["route_prefix"] for each in applications] == ["/my-model", "/shapes"]
    options = [ApplicationOptions.from_args(each["args"]) for each in applications]
    assert [each.archive for each in options] == [URI, "/mnt/models/shapes.mar"]
    assert all(each.scales and each.fewest_replicas == 2 for each in options)
    (worker,) = cluster_of(written)["workerGroupSpecs"]
    assert (worker["minReplicas"], worker["maxReplicas"]) == (4, 10)
    assert cluster_of(written)["enableInTreeAutoscaling"] is True


@pytest.mark.parametrize(
    "options",
    [(), ("--gpus", "1", "--claim", "models"), ("--max-replicas", "4", "--service-account", "s3")],
)
def test_manifests_match_their_schema(write: Write, options: tuple[str, ...]) -> None:
    written = write(URI, *options)
    validate(written["ray-service.yaml"])
    validate(written["network-policy.yaml"])


def test_every_node_runs_haproxy(write: Write) -> None:
    containers = containers_of(cluster_of(write(URI, "--token-secret", "mine")))
    assert [each["name"] for each in containers] == ["ray-head", "ray-worker"]
    assert ENVIRONMENT["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert ENVIRONMENT["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    for container in containers:
        variables = {each["name"]: each.get("value") for each in container["env"]}
        assert ENVIRONMENT.items() <= variables.items()
        assert "D2SERVE_SERVER_TOKEN" in variables


def test_the_network_policy_closes_the_ports_of_haproxy(write: Write) -> None:
    written = write(URI, "--name", "production")
    spec = written["network-policy.yaml"]["spec"]
    pods = {"matchLabels": spec["podSelector"]["matchLabels"]}
    for group in (cluster_of(written)["headGroupSpec"], *cluster_of(written)["workerGroupSpecs"]):
        assert group["template"]["metadata"]["labels"] == pods["matchLabels"]
    assert spec["policyTypes"] == ["Ingress"]
    own, *others = spec["ingress"]
    assert own == {"from": [{"podSelector": pods}]}
    opened = {port["port"] for rule in others for port in rule["ports"]}
    assert opened == {8000, 8265}
    assert not opened & set(CLOSED_PORTS)


def test_the_size_follows_the_archive(write: Write) -> None:
    threads = Model("a.mar", "a", Settings(threads=6, max_queued_bytes=3_000_000_000))
    assert Scale().node_cpus([threads]) == 6
    assert Scale().node_gib([threads]) == 7
    assert Scale(cpus=1, memory_gib=3).node_cpus([threads]) == 1
    (worker,) = cluster_of(write(URI))["workerGroupSpecs"]
    assert size_of(worker) == {"cpu": "2", "memory": "5Gi"}
    assert worker["rayStartParams"]["num-cpus"] == "2"


def test_replicas_share_a_gpu(write: Write) -> None:
    (worker,) = cluster_of(write(URI, "--gpus", "0.5", "--replicas", "3"))["workerGroupSpecs"]
    assert worker["replicas"] == 2
    assert size_of(worker) == {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": 1}


def test_versions_are_those_of_the_image(repo_root: Path) -> None:
    pins = (repo_root / "constraints-ray.txt").read_text()
    assert f"ray[serve,data]=={RAY_VERSION}\n" in pins
    version = re.search(r'^version = "(.*)"', (repo_root / "pyproject.toml").read_text(), re.M)
    assert version
    assert DEFAULT_IMAGE.endswith(f":{version[1]}")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["absent.mar"], ArchiveError, "absent.mar does not exist; .*d2serve archive"),
        (["s3://my-bucket/"], CommandError, "'s3://my-bucket/', expected .*s3://my-bucket/models"),
        (["https://host/a.mar"], CommandError, "'https://host/a.mar', expected"),
        ([URI, "s3://other/my-model.tar.gz"], CommandError, "have the name 'my-model'; rename"),
        ([URI, "--name", "My_Model"], CommandError, "'My_Model', expected .*--name"),
        ([URI, "--replicas", "2", "--max-replicas", "3"], CommandError, "give either"),
        ([URI, "--min-replicas", "3", "--max-replicas", "2"], CommandError, "at least the 3"),
    ],
)
def test_usage_errors(
    arguments: list[str], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        invoke(["ray-config", *arguments, "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_every_option_is_documented() -> None:
    commands: Any = typer.main.get_command(app)
    command = commands.commands["ray-config"]
    options = {each.opts[0] for each in command.params if each.opts[0].startswith("--")}
    cells = {code for row in rows_of("kubernetes.md", "## KubeRay") for code in code_in(row[0])}
    assert {code for code in cells if code.startswith("--")} == options - {"--help"}
