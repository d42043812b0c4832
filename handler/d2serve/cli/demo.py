"""`make demo`: serve the bundled model, send its sample images, write overlays."""

from pathlib import Path

from d2serve.cli.run import run
from d2serve.client.client import Client
from d2serve.client.folder import outcome_table, result_console, send_pictures
from d2serve.client.http import HttpTransport
from d2serve.client.transport import find_pictures
from d2serve.servers.torchserve.launcher.server import running_server

ARCHIVE = Path("model-store", "shapes.mar")
SAMPLES = Path("models", "shapes", "samples")
OVERLAYS = Path("out")
LOGS = Path("logs", "demo")


def main() -> int:
    """Print what was found in each sample and write the overlays; 1 if any was refused."""
    pictures = find_pictures(SAMPLES)
    print(f"Starting TorchServe with {ARCHIVE}", flush=True)
    with (
        running_server(ARCHIVE, log_dir=LOGS) as server,
        Client(HttpTransport(f"{server.url}/invocations")) as client,
    ):
        outcomes = send_pictures(client, pictures, SAMPLES, OVERLAYS)
    result_console().print(outcome_table(outcomes))
    refused = sum(outcome.failed for outcome in outcomes)
    if refused:
        print(f"{refused} of {len(outcomes)} pictures were refused; the logs are in {LOGS}")
    else:
        print(f"{len(outcomes)} pictures done; their overlays are in {OVERLAYS}")
    return int(bool(refused))


if __name__ == "__main__":
    run(main)
