"""The manifests in deploy/: their fields, their probes, and the commands that they run."""

import copy
import re
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from d2serve.cli.main import app
from d2serve.servers.asgi.app import create_app
from d2serve.servers.asgi.models import Models
from d2serve.settings import Settings
from tests.kubernetes.dockerfile import instructions_in
from tests.kubernetes.manifests import DEPLOY, containers_of, deployed_manifests, validate

Manifest = dict[str, Any]
MANIFESTS = dict(deployed_manifests())
DEPLOYMENT = MANIFESTS["kubernetes-Deployment"]
RUNTIME = MANIFESTS["kserve-ClusterServingRuntime"]
SERVICE = MANIFESTS["kserve-InferenceService"]
# Routes that need no token: the kubelet sends none.
PROBES = {"/v2/health/live": "livenessProbe", "/v2/health/ready": "readinessProbe"}


def test_every_kind_is_checked() -> None:
    assert set(MANIFESTS) == {
        *("kubernetes-Deployment", "kubernetes-Service", "kubernetes-HorizontalPodAutoscaler"),
        *("kubernetes-PodDisruptionBudget", "kubernetes-NetworkPolicy"),
        *("kserve-ClusterServingRuntime", "kserve-InferenceService"),
        *("ray-RayService", "ray-NetworkPolicy"),
    }


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_match_their_schema(name: str) -> None:
    validate(MANIFESTS[name])


@pytest.mark.parametrize("name", MANIFESTS)
def test_an_unknown_field_is_detected(name: str) -> None:
    manifest = copy.deepcopy(MANIFESTS[name])
    manifest["spec"]["replica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        validate(manifest)


def _misspell_probe(manifest: Manifest) -> None:
    containers_of(manifest)[0]["livenessProbe"]["httpget"] = {}


def _give_cpu_as_list(manifest: Manifest) -> None:
    containers_of(manifest)[0]["resources"]["limits"] = ["2"]


def _misspell_worker_group(manifest: Manifest) -> None:
    manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["minReplica"] = 1


def _remove_worker_template(manifest: Manifest) -> None:
    del manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]


def _misspell_storage(manifest: Manifest) -> None:
    manifest["spec"]["predictor"]["model"]["storageURI"] = "s3://my-bucket/"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("kubernetes-Deployment", _misspell_probe, "httpget"),
        ("kserve-ClusterServingRuntime", _give_cpu_as_list, "not of type 'object'"),
        ("kserve-InferenceService", _misspell_storage, "storageURI"),
        ("ray-RayService", _misspell_probe, "httpget"),
        ("ray-RayService", _misspell_worker_group, "minReplica"),
        ("ray-RayService", _remove_worker_template, "'template' is a required"),
    ],
)
def test_a_wrong_nested_field_is_detected(
    name: str, damage: Callable[[Manifest], None], message: str
) -> None:
    manifest = copy.deepcopy(MANIFESTS[name])
    damage(manifest)
    with pytest.raises(jsonschema.ValidationError, match=message):
        validate(manifest)


@pytest.mark.parametrize("manifest", [DEPLOYMENT, RUNTIME], ids=lambda each: each["kind"])
def test_containers_run_a_command_of_this_version(manifest: Manifest) -> None:
    (container,) = containers_of(manifest)
    entrypoint = instructions_in(DEPLOY / "docker" / "Dockerfile").commands["ENTRYPOINT"]
    arguments: list[str] = container["args"]
    program, name, *options = [*entrypoint, *arguments]
    command: Any = typer.main.get_command(app)
    values = command.commands[name].make_context(program, options).params
    assert values["server"].value == "asgi"
    assert [str(each) for each in values["models"]] == ["/mnt/models"]
    assert values["address"] == "0.0.0.0"
    assert container["ports"][0]["containerPort"] == values["port"]


@pytest.mark.parametrize("manifest", [DEPLOYMENT, RUNTIME], ids=lambda each: each["kind"])
def test_probes_request_health_checks(manifest: Manifest) -> None:
    (container,) = containers_of(manifest)
    routes = {str(getattr(route, "path", "")) for route in create_app(Models(["m"])).routes}
    for path, probe in PROBES.items():
        assert path in routes
        assert container[probe]["httpGet"]["path"] == path
        assert container[probe]["httpGet"]["port"] in ("http", 8080)


def test_the_model_has_the_name_that_kserve_expects() -> None:
    (container,) = containers_of(RUNTIME)
    assert container["args"][1:3] == ["--name", "{{.Name}}"]
    formats = {each["name"] for each in RUNTIME["spec"]["supportedModelFormats"]}
    model = SERVICE["spec"]["predictor"]["model"]
    assert model["modelFormat"]["name"] in formats
    assert model["runtime"] == RUNTIME["metadata"]["name"]
    assert model["protocolVersion"] in RUNTIME["spec"]["protocolVersions"]


def test_pods_have_time_to_finish_their_requests() -> None:
    pods = DEPLOYMENT["spec"]["template"]["spec"], SERVICE["spec"]["predictor"]
    assert all(pod["terminationGracePeriodSeconds"] > Settings().drain_seconds + 5 for pod in pods)


def test_selectors_match_the_pods() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    kinds = ("Service", "PodDisruptionBudget", "NetworkPolicy")
    specs = {kind: MANIFESTS[f"kubernetes-{kind}"]["spec"] for kind in kinds}
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert specs["Service"]["selector"] == labels
    assert specs["PodDisruptionBudget"]["selector"]["matchLabels"] == labels
    assert specs["NetworkPolicy"]["podSelector"]["matchLabels"] == labels
    scaled = MANIFESTS["kubernetes-HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert scaled["name"] == DEPLOYMENT["metadata"]["name"]


@pytest.mark.parametrize("name", ["kubernetes-Deployment", "kserve-ClusterServingRuntime"])
def test_containers_are_confined(name: str) -> None:
    (container,) = containers_of(MANIFESTS[name])
    confined = container["securityContext"]
    assert confined["readOnlyRootFilesystem"] is True
    assert confined["allowPrivilegeEscalation"] is False
    assert confined["capabilities"] == {"drop": ["ALL"]}
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


def merged(base: Any, patch: Any) -> Any:
    """Apply a patch as kubectl does: maps are merged, and lists of named objects by name."""
    if isinstance(base, dict) and isinstance(patch, dict):
        keys = {**base, **patch}
        return {
            key: merged(base[key], patch.get(key)) if key in base else patch[key] for key in keys
        }
    if isinstance(base, list) and isinstance(patch, list) and isinstance(patch[0], dict):
        named = {each["name"]: each for each in base}
        for each in patch:
            named[each["name"]] = merged(named.get(each["name"]), each)
        return list(named.values())
    return base if patch is None else patch


def test_the_patches_of_the_documentation_match_the_schema() -> None:
    page = (DEPLOY.parent / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    bucket, gpu = map(yaml.safe_load, blocks)
    without_claim = copy.deepcopy(DEPLOYMENT)
    del without_claim["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]
    from_bucket = merged(without_claim, {"spec": {"template": bucket}})
    validate(from_bucket)
    assert len(from_bucket["spec"]["template"]["spec"]["volumes"]) == 2
    (container,) = containers_of(merged(DEPLOYMENT, gpu))
    assert container["resources"]["limits"] == {
        **containers_of(DEPLOYMENT)[0]["resources"]["limits"],
        "nvidia.com/gpu": 1,
    }
    validate(merged(DEPLOYMENT, gpu))
