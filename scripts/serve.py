"""`make serve`: one model in the foreground until Ctrl-C or SIGTERM."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.errors import run
from scripts.ports import Ports
from scripts.torchserve import Server, running_server

SHAPES = Path("model-store", "shapes.mar")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop, which is no failure."""
    options = _parser().parse_args(arguments)
    try:
        ports = Ports.starting_at(options.port)
        with running_server(
            options.model,
            log_dir=Path("logs", f"serve-{options.port}"),
            ports=ports,
            front_door=True,
        ) as server:
            print(_greeting(server), flush=True)
            _serve_until_told_to_stop(server)
    except KeyboardInterrupt:
        print("stopped", flush=True)
    return 0


def _serve_until_told_to_stop(server: Server) -> None:
    try:
        server.wait_until_gone()
    except KeyboardInterrupt:
        print("answering what runs; Ctrl-C again breaks it off", flush=True)
        server.stop()
        raise


def _greeting(server: Server) -> str:
    return (
        f"{server.model_name} is served at {server.url}/invocations; try: "
        f"curl -H 'Content-Type: image/jpeg' --data-binary @picture.jpg {server.url}/invocations"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="serve", description=__doc__)
    parser.add_argument("--model", type=Path, default=SHAPES, help="default: %(default)s")
    parser.add_argument("--port", type=int, default=8080, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    run(main)
