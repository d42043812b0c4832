"""What a TorchServe and its workers are told: config.properties and their environment."""

from collections.abc import Mapping
from pathlib import Path

from handler.lifecycle.draining import KEY_FILE as KEY_FILE_VARIABLE
from handler.lifecycle.front_door import CERTIFICATE, KEY, PUBLIC_ADDRESS, SERVER_ADDRESS
from scripts.exposure import Exposure, in_url
from scripts.ports import LOOPBACK, Ports
from scripts.properties import read_properties
from scripts.tokens import KEY_FILE
from scripts.waiting_threads import waiting_threads

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = REPOSITORY / "config.properties"
METRICS_CONFIG = "metrics_config"
THIS_MACHINE = Exposure()


def server_properties(ports: Ports, exposure: Exposure = THIS_MACHINE) -> dict[str, str]:
    """The repository's config.properties, from whatever folder, listening on these ports for those
    who may ask."""
    properties = read_properties(CONFIG)
    metrics = str(REPOSITORY / properties[METRICS_CONFIG])
    return (
        properties
        | {METRICS_CONFIG: metrics}
        | ports.as_properties()
        | exposure.as_properties(ports)
    )


def server_environment(
    environment: Mapping[str, str], home: Path, java_home: Path, log_dir: Path
) -> dict[str, str]:
    """What the server and its workers may see of our environment, which may say how threads wait.

    PYTHONPATH stays out, or a worker could import this checkout's handler in place of the
    archive's, and so do the TS_ variables, which would win over our settings.
    """
    inherited = {
        key: value
        for key, value in environment.items()
        if key != "PYTHONPATH" and not key.startswith("TS_")
    }
    return (
        waiting_threads(inherited)
        | inherited
        | {
            "JAVA_HOME": str(java_home),
            "TMPDIR": str(home),
            "TEMP": str(home),
            "LOG_LOCATION": str(log_dir),
            "METRICS_LOCATION": str(log_dir),
            KEY_FILE_VARIABLE: str(home / KEY_FILE),
        }
    )


def door_environment(public: Ports, inner: Ports, exposure: Exposure) -> dict[str, str]:
    """What a worker needs to know to open the public port in front of TorchServe's own."""
    addresses = {
        PUBLIC_ADDRESS: f"{in_url(exposure.address)}:{public.inference}",
        SERVER_ADDRESS: f"http://{LOOPBACK}:{inner.inference}",
    }
    if exposure.certificate is None:
        return addresses
    return addresses | {
        CERTIFICATE: str(exposure.certificate.chain.resolve()),
        KEY: str(exposure.certificate.key.resolve()),
    }
