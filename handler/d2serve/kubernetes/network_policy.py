"""The NetworkPolicy of a Ray cluster: HAProxy's and Ray's own ports are closed to other pods.

In HAProxy mode, replicas accept requests on ports 30000 to 31000 of all interfaces, and HAProxy
publishes its metrics and statistics on ports 9101 and 8404, all without a token. Ray's own ports
run any code that they receive.
"""

from typing import Any

from d2serve.kubernetes.ray_service import DASHBOARD_PORT, RayCluster
from d2serve.kubernetes.serve_config import HTTP_PORT

OPERATOR = {"app.kubernetes.io/name": "kuberay-operator"}


def network_policy(cluster: RayCluster) -> dict[str, Any]:
    """Return the manifest of a NetworkPolicy (networking.k8s.io/v1) for the pods of a cluster.

    The pods reach each other on all ports, everyone reaches the port of Ray Serve, and KubeRay's
    operator reaches the dashboard, to which it sends the Serve config.
    """
    operator = {"namespaceSelector": {}, "podSelector": {"matchLabels": OPERATOR}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": cluster.name, "labels": cluster.labels},
        "spec": {
            "podSelector": {"matchLabels": cluster.labels},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": {"matchLabels": cluster.labels}}]},
                {"ports": [_tcp(HTTP_PORT)]},
                {"from": [operator], "ports": [_tcp(DASHBOARD_PORT)]},
            ],
        },
    }


def _tcp(port: int) -> dict[str, Any]:
    return {"protocol": "TCP", "port": port}
