"""`make demo`: the bundled model on its sample pictures, through a TorchServe of its own."""

from pathlib import Path

from scripts.client import Client, HttpTransport
from scripts.errors import run
from scripts.outcomes import outcome_table
from scripts.pictures import find_pictures
from scripts.sending import result_console, send_pictures
from scripts.torchserve import running_server

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
