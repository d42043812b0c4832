"""Run `d2serve serve --server ray` as a child process, in the environment that has Ray."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.serving.asgi_server import AsgiServer, running_asgi_server

RAY_PYTHON = Path(__file__).resolve().parents[2] / ".venv-ray" / "bin" / "python"


@contextmanager
def running_ray_server(
    model: Path,
    *,
    log_dir: Path,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    ready_route: str = "/ping",
) -> Iterator[AsgiServer]:
    """Run the command while the `with` block runs; yields when the model is ready.

    Args:
        model: an archive, or a folder with its content.
        log_dir: folder for the output.
        environment: further variables.
        arguments: further options of the command.
        ready_route: route that succeeds when the model is ready.
    """
    with running_asgi_server(
        model,
        log_dir=log_dir,
        environment=environment,
        arguments=arguments,
        server="ray",
        python=RAY_PYTHON,
    ) as server:
        server = replace(server, ready_route=ready_route)
        server.wait_until_ready()
        yield server
