"""`make sagemaker-local`: serve a package with AWS's own toolkit, without Docker."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from d2serve.aws.containers import container_environment
from d2serve.aws.local_container import Container, load_model, running_container
from d2serve.building.package import package_path, read_package
from d2serve.building.packing import STORE, check_name
from d2serve.cli.run import run
from d2serve.servers.torchserve.launcher.ports import Ports

READY_WITHIN_S = 300
SAMPLE = "models/shapes/samples/shapes_01.jpg"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop, which is no failure."""
    given = _parser().parse_args(arguments)
    package = package_path(given.model_store, check_name(given.name), multi_model=given.multi_model)
    read_package(package)
    try:
        if given.multi_model:
            _serve_many(package, given.name, given.port)
        else:
            _serve_one(package, given.port)
    except KeyboardInterrupt:
        print("stopped", flush=True)
    return 0


def _serve_one(package: Path, port: int) -> None:
    with running_container(
        package,
        container_environment("realtime", {}),
        log_dir=_log_dir(port),
        ports=Ports.starting_at(port),
    ) as container:
        container.wait_until_healthy(READY_WITHIN_S)
        _greet(container, "/invocations")
        container.wait_until_gone()


def _serve_many(package: Path, name: str, port: int) -> None:
    with running_container(
        None,
        container_environment("mme", {}),
        log_dir=_log_dir(port),
        ports=Ports.starting_at(port),
    ) as container:
        container.wait_until_healthy(READY_WITHIN_S)
        load_model(container, package, name)
        _greet(container, f"/models/{name}/invoke")
        container.wait_until_gone()


def _greet(container: Container, route: str) -> None:
    url = f"{container.url}{route}"
    print(f"healthy, as SageMaker sees it; try: curl -T {SAMPLE} -X POST {url}", flush=True)


def _log_dir(port: int) -> Path:
    return Path("logs", f"sagemaker-local-{port}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sagemaker-local", description=__doc__)
    parser.add_argument("--name", required=True, help="as in make package NAME=")
    parser.add_argument("--port", type=int, default=8080, help="default: %(default)s")
    parser.add_argument("--multi-model", action="store_true", help="as a multi-model endpoint")
    parser.add_argument("--model-store", type=Path, default=STORE, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    run(main)
