"""`make serve`: serve one model in the foreground."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from d2serve.cli.run import run
from d2serve.errors import CommandError
from d2serve.servers.torchserve.launcher.network import Certificate, Exposure, in_url
from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.launcher.server import Server, running_server

SHAPES = Path("model-store", "shapes.mar")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop, which is no failure."""
    options = _parser().parse_args(arguments)
    exposure = Exposure(options.address, options.metrics_address, _certificate(options))
    log_dir = Path("logs", f"serve-{options.port}")
    try:
        ports = Ports.starting_at(options.port, exposure.address)
        with running_server(
            options.model, log_dir=log_dir, ports=ports, exposure=exposure, front_door=True
        ) as server:
            print("\n".join([_greeting(server), *_cautions(server)]), flush=True)
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
    token = '-H "Authorization: Bearer TOKEN" ' if server.exposure.needs_token else ""
    trust = f"--cacert {server.exposure.certificate.chain} " if server.exposure.certificate else ""
    return (
        f"{server.model_name} is served at {server.url}/invocations; try: curl {trust}{token}"
        f"-H 'Content-Type: image/jpeg' --data-binary @picture.jpg {server.url}/invocations"
    )


def _cautions(server: Server) -> Iterator[str]:
    """What to know of a server that others can reach; of tokens only where they are."""
    if not server.exposure.needs_token:
        return
    yield f"others reach it at {in_url(server.exposure.address)}:{server.ports.inference}"
    yield f"TOKEN is inference.key in {server.key_file}"
    if server.exposure.certificate is None:
        yield "nothing is encrypted, the token included; CERTIFICATE= and KEY= encrypt it"


def _certificate(options: argparse.Namespace) -> Certificate | None:
    files = options.certificate, options.key
    if files == (None, None):
        return None
    if None in files:
        raise CommandError("CERTIFICATE= and KEY= belong together; give both or neither")
    return Certificate(*files)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="serve", description=__doc__)
    parser.add_argument("--model", type=Path, default=SHAPES, help="default: %(default)s")
    parser.add_argument("--port", type=int, default=8080, help="default: %(default)s")
    parser.add_argument("--address", default=LOOPBACK, help="default: %(default)s, this machine")
    parser.add_argument("--metrics-address", default=LOOPBACK, help="default: %(default)s")
    parser.add_argument("--certificate", type=Path, help="PEM file that makes it HTTPS")
    parser.add_argument("--key", type=Path, help="PEM file of the certificate's private key")
    return parser


if __name__ == "__main__":
    run(main)
