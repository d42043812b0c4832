"""The command `d2serve sagemaker-local`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d2serve.cli.options import (
    MODEL_STORE,
    ModelStore,
    PackageContainer,
    check_container,
    examples,
    requires_extra,
)

if TYPE_CHECKING:
    from d2serve.aws.local_container import Container

PANEL = "SageMaker"
READY_WITHIN_S = 300
SAMPLE = "models/shapes/samples/shapes_01.jpg"

app = typer.Typer()


@app.command(
    rich_help_panel=PANEL,
    epilog=examples("d2serve sagemaker-local --name shapes --port 8080"),
)
def sagemaker_local(
    name: Annotated[str, typer.Option(help="Name of the model, as in d2serve package.")],
    container: PackageContainer = None,
    port: Annotated[int, typer.Option(help="Port of the container.")] = 8080,
    multi_model: Annotated[
        bool, typer.Option("--multi-model", help="Serve as a multi-model endpoint.")
    ] = False,
    model_store: ModelStore = MODEL_STORE,
) -> None:
    """Serve a package in the container that it was built for, without Docker.

    Needs the container's packages in .venv-ray or .venv-container, which `make sagemaker-local`
    installs.
    """
    from d2serve.building.package import Container, package_path, read_package
    from d2serve.building.packing import check_name

    path = package_path(model_store, check_name(name), multi_model=multi_model)
    package = read_package(path)
    check_container(package, container)
    try:
        if package.container is Container.RAY:
            _serve_with_ray(path, port)
        else:
            _serve(path, name, port, multi_model)
    except KeyboardInterrupt:
        typer.echo("stopped")


def _serve(package: Path, name: str, port: int, multi_model: bool) -> None:
    """Serve until interrupted; a multi-model container loads the package when it is healthy."""
    with requires_extra("torchserve"):
        from d2serve.aws import local_container
        from d2serve.aws.containers import container_environment
        from d2serve.servers.torchserve.launcher.ports import Ports

    with local_container.running_container(
        None if multi_model else package,
        container_environment("mme" if multi_model else "realtime", {}),
        log_dir=Path("logs", f"sagemaker-local-{port}"),
        ports=Ports.starting_at(port),
    ) as container:
        container.wait_until_healthy(READY_WITHIN_S)
        route = "/invocations"
        if multi_model:
            local_container.load_model(container, package, name)
            route = f"/models/{name}/invoke"
        _wait(container, f"{container.url}{route}")


def _serve_with_ray(package: Path, port: int) -> None:
    """Serve until interrupted."""
    with requires_extra("torchserve"):
        from d2serve.aws.ray_container import running_ray_container
        from d2serve.aws.ray_image import container_environment
        from d2serve.servers.torchserve.launcher.ports import Ports

    with running_ray_container(
        package,
        container_environment("realtime", {}),
        log_dir=Path("logs", f"sagemaker-local-{port}"),
        ports=Ports.starting_at(port),
    ) as container:
        container.wait_until_healthy(READY_WITHIN_S)
        _wait(container, f"{container.url}/invocations")


def _wait(container: "Container", url: str) -> None:
    typer.echo(f"SageMaker's health check succeeds; try: curl -T {SAMPLE} -X POST {url}")
    container.wait_for_exit()
