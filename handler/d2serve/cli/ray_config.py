"""The command `d2serve ray-config`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d2serve.cli.options import examples
from d2serve.errors import CommandError

if TYPE_CHECKING:
    from d2serve.kubernetes.ray_service import RayCluster

PANEL = "Kubernetes"
SIZE_PANEL = "Size"
# KubeRay appends to the name, and Kubernetes accepts 63 characters.
NAME = re.compile(r"[a-z]([a-z0-9-]{0,45}[a-z0-9])?")
DEFAULT_IMAGE = "registry.example.com/d2serve-ray:0.2.0"

app = typer.Typer()


@app.command(
    "ray-config",
    rich_help_panel=PANEL,
    epilog=examples(
        "d2serve ray-config s3://my-bucket/models/my-model.mar --image registry/d2serve-ray:1",
        "d2serve ray-config model-store/my-model.mar --image registry/d2serve-ray:1 "
        "--claim models --min-replicas 2 --max-replicas 10 --gpus 1",
    ),
)
def ray_config(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="Archive (.mar) or package (.tar.gz), or its s3:// URI."
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(help="Name of the RayService.", show_default="the first model's"),
    ] = None,
    image: Annotated[
        str, typer.Option(help="Image of deploy/docker/ray.Dockerfile in your registry.")
    ] = DEFAULT_IMAGE,
    claim: Annotated[
        str,
        typer.Option(
            help="PersistentVolumeClaim with the archives in its root.",
            show_default="the image contains them, in /mnt/models",
        ),
    ] = "",
    token_secret: Annotated[
        str,
        typer.Option(
            help="Secret whose key `token` is the token that clients need.",
            show_default="no token",
        ),
    ] = "",
    service_account: Annotated[
        str,
        typer.Option(
            help="ServiceAccount of the pods, such as one that may read the bucket.",
            show_default="the namespace's",
        ),
    ] = "",
    replicas: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of replicas of each model.",
            show_default="2",
            rich_help_panel=SIZE_PANEL,
        ),
    ] = None,
    min_replicas: Annotated[
        int | None,
        typer.Option(
            min=1, help="Replicas that always run; enables scaling.", rich_help_panel=SIZE_PANEL
        ),
    ] = None,
    max_replicas: Annotated[
        int | None,
        typer.Option(
            min=1, help="Replicas under load; enables scaling.", rich_help_panel=SIZE_PANEL
        ),
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="CPUs of a replica.",
            show_default="handler.threads of the archive, else 2",
            rich_help_panel=SIZE_PANEL,
        ),
    ] = None,
    gpus: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="GPUs of a replica, or a part of one.", rich_help_panel=SIZE_PANEL
        ),
    ] = 0,
    memory: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="GIB",
            help="Memory of a node in GiB.",
            show_default="from handler.max_queued_bytes",
            rich_help_panel=SIZE_PANEL,
        ),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to.")] = Path(
        "out", "ray-config"
    ),
) -> None:
    """Write a Ray Serve config, and manifests for KubeRay.

    Writes serve-config.yaml for `serve deploy`, ray-service.yaml and network-policy.yaml for
    `kubectl apply`. Needs neither Ray nor a cluster.
    """
    from d2serve.kubernetes.models import read_models
    from d2serve.kubernetes.network_policy import network_policy
    from d2serve.kubernetes.ray_service import RayCluster, ray_service
    from d2serve.kubernetes.scale import Scale
    from d2serve.kubernetes.serve_config import serve_config
    from d2serve.kubernetes.yaml_files import write_yaml

    scale = Scale.of(replicas, min_replicas, max_replicas, cpus=cpus, gpus=gpus, memory_gib=memory)
    archives = read_models(models)
    cluster = RayCluster(
        name=_checked_name(name, archives[0].name),
        image=image,
        claim=claim,
        token_secret=token_secret,
        service_account=service_account,
    )
    write_yaml(output / "serve-config.yaml", serve_config(archives, scale))
    write_yaml(output / "ray-service.yaml", ray_service(cluster, archives, scale))
    write_yaml(output / "network-policy.yaml", network_policy(cluster))
    typer.echo(_next_steps(output, cluster))


def _checked_name(name: str | None, model_name: str) -> str:
    """The name of the RayService.

    Raises:
        CommandError: Kubernetes does not accept it.
    """
    if name is None:
        name = re.sub("[^a-z0-9]+", "-", model_name.lower()).strip("-")
    if not NAME.fullmatch(name):
        raise CommandError(
            f"the name of the RayService is {name!r}, expected a lower-case letter and up to 46 "
            "lower-case letters, digits and -; give another one with --name"
        )
    return name


def _next_steps(output: Path, cluster: "RayCluster") -> str:
    lines = [
        f"for a running Ray cluster: serve deploy {output}/serve-config.yaml",
        f"for KubeRay: kubectl apply -f {output}/network-policy.yaml -f {output}/ray-service.yaml",
    ]
    if cluster.image == DEFAULT_IMAGE:
        lines.append(f"replace the image {DEFAULT_IMAGE} by your own, with --image")
    if not cluster.token_secret:
        lines.append("requests need no token; --token-secret requires one")
    return "\n".join(lines)
