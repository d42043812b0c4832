"""KubeRay's RayService: a Ray cluster that runs the applications of a Serve config."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from d2serve.kubernetes.models import Model
from d2serve.kubernetes.scale import Scale
from d2serve.kubernetes.serve_config import HTTP_PORT, serve_config

# The version of constraints-ray.txt, which deploy/docker/ray.Dockerfile installs.
RAY_VERSION = "2.57.0"
ARCHIVES = "/mnt/models"
GCS_PORT = 6379
DASHBOARD_PORT = 8265
AGENT_PORT = 52365
TOKEN_VARIABLE = "D2SERVE_SERVER_TOKEN"  # noqa: S105
# HAProxy in place of Ray's default proxy, on each node. A proxy or replica that does not
# respond is replaced soon.
ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# Longer than the default of `drain_seconds`.
GRACE_S = 45
USER = 1000
VOLUME = "models"
OBJECT_STORE_BYTES = 268_435_456
GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class RayCluster:
    """The cluster of a RayService.

    Attributes:
        name: name of the RayService.
        image: container image with d2serve and Ray.
        claim: PersistentVolumeClaim with the archives of this machine; empty if the image contains
            them.
        token_secret: Secret whose key `token` is the token that clients need; empty for none.
        service_account: ServiceAccount of the pods, such as one that may read the bucket.
    """

    name: str
    image: str
    claim: str = ""
    token_secret: str = ""
    service_account: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """The labels of all pods."""
        return {"app.kubernetes.io/name": "d2serve", "app.kubernetes.io/instance": self.name}


def ray_service(cluster: RayCluster, models: Sequence[Model], scale: Scale) -> dict[str, Any]:
    """Return the manifest of a RayService (ray.io/v1)."""
    config = serve_config(models, scale, ARCHIVES)
    least, most = scale.nodes(models)
    # The head node has no replicas, but it may build the application, which loads the model.
    head = _container(cluster, "ray-head", cpus=2, gib=scale.node_gib(models))
    head["ports"] = _ports(
        {"gcs-server": GCS_PORT, "dashboard": DASHBOARD_PORT, "serve": HTTP_PORT}
    )
    worker = _container(
        cluster, "ray-worker", cpus=scale.node_cpus(models), gib=scale.node_gib(models)
    )
    worker["ports"] = _ports({"serve": HTTP_PORT})
    # Only nodes with a replica have a proxy, and only they receive requests.
    worker["readinessProbe"] = _probe("/-/healthz", HTTP_PORT, failures=1)
    if scale.gpus:
        worker["resources"]["limits"][GPU] = 1
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": cluster.name, "labels": cluster.labels},
        "spec": {
            "serveConfigV2": yaml.safe_dump(config, sort_keys=False),
            "upgradeStrategy": {"type": "NewCluster"},
            "excludeHeadPodFromServeSvc": True,
            "rayClusterConfig": {
                "rayVersion": RAY_VERSION,
                **({} if scale.is_fixed else {"enableInTreeAutoscaling": True}),
                "headGroupSpec": {
                    "rayStartParams": _start_params(cpus=0) | {"dashboard-host": "0.0.0.0"},  # noqa: S104
                    "template": _template(cluster, head),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "replicas",
                        "replicas": least,
                        "minReplicas": least,
                        "maxReplicas": most,
                        "rayStartParams": _start_params(scale.node_cpus(models)),
                        "template": _template(cluster, worker),
                    }
                ],
            },
        },
    }


def _start_params(cpus: int) -> dict[str, str]:
    return {"num-cpus": str(cpus), "object-store-memory": str(OBJECT_STORE_BYTES)}


def _template(cluster: RayCluster, container: dict[str, Any]) -> dict[str, Any]:
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": cluster.labels},
    }
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": GRACE_S,
        "topologySpreadConstraints": [spread],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    if cluster.service_account:
        spec["serviceAccountName"] = cluster.service_account
    if cluster.claim:
        claim = {"claimName": cluster.claim, "readOnly": True}
        spec["volumes"] = [{"name": VOLUME, "persistentVolumeClaim": claim}]
        mount = {"name": VOLUME, "mountPath": ARCHIVES, "readOnly": True}
        container["volumeMounts"] = [mount]
    return {"metadata": {"labels": cluster.labels}, "spec": spec}


def _container(cluster: RayCluster, name: str, *, cpus: int, gib: int) -> dict[str, Any]:
    environment: list[dict[str, Any]] = [
        {"name": variable, "value": value} for variable, value in ENVIRONMENT.items()
    ]
    if cluster.token_secret:
        key = {"secretKeyRef": {"name": cluster.token_secret, "key": "token"}}
        environment.append({"name": TOKEN_VARIABLE, "valueFrom": key})
    size = {"cpu": str(cpus), "memory": f"{gib}Gi"}
    return {
        "name": name,
        "image": cluster.image,
        "env": environment,
        "resources": {"requests": dict(size), "limits": dict(size)},
        "livenessProbe": _probe("/api/healthz", AGENT_PORT, failures=12),
        "readinessProbe": _probe("/api/healthz", AGENT_PORT, failures=3),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _probe(path: str, port: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": port},
        "initialDelaySeconds": 10,
        "periodSeconds": 5,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _ports(ports: dict[str, int]) -> list[dict[str, Any]]:
    return [{"name": name, "containerPort": port} for name, port in ports.items()]
