"""Ray Serve's config file of applications, as `serve build` writes it."""

from collections.abc import Sequence
from typing import Any

from d2serve.kubernetes.models import Model
from d2serve.kubernetes.scale import Scale

IMPORT_PATH = "d2serve.servers.ray:build"
HTTP_PORT = 8000
ANY = "0.0.0.0"  # noqa: S104


def serve_config(models: Sequence[Model], scale: Scale, archives: str = "") -> dict[str, Any]:
    """Return the config of one application per model.

    One model has the route prefix `/`, several have `/NAME`.

    Args:
        models: the models.
        scale: their replicas.
        archives: folder on each node that contains the archives of this machine; empty for the
            paths of this machine.
    """
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": ANY, "port": HTTP_PORT},
        "applications": [
            {
                "name": model.name,
                "route_prefix": "/" if len(models) == 1 else f"/{model.name}",
                "import_path": IMPORT_PATH,
                "args": _args(model, scale, archives),
            }
            for model in models
        ],
    }


def _args(model: Model, scale: Scale, archives: str) -> dict[str, Any]:
    args: dict[str, Any] = {
        "archive": model.path_in(archives) if archives else model.source,
        "name": model.name,
        "num_cpus": scale.cpus_of(model),
    }
    if scale.gpus:
        args["num_gpus"] = scale.gpus
    if scale.is_fixed:
        return {**args, "num_replicas": scale.min_replicas}
    limits = {"min_replicas": scale.min_replicas, "max_replicas": scale.max_replicas}
    return {**args, "num_replicas": "auto", "autoscaling": limits}
