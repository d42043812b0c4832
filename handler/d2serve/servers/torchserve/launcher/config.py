"""TorchServe's config.properties, ports and environment."""

from collections.abc import Mapping
from pathlib import Path

from d2serve.servers.torchserve.draining import KEY_FILE as KEY_FILE_VARIABLE
from d2serve.servers.torchserve.launcher.network import KEY_FILE, Exposure, in_url
from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.proxy.proxy import CERTIFICATE, KEY, PUBLIC_ADDRESS, SERVER_ADDRESS


def read_properties(path: Path) -> dict[str, str]:
    """Return the `key=value` lines of a properties file, comments left out."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write a properties file that both Java and TorchServe's own Python reader understand."""
    lines = (f"{key}={value}\n" for key, value in properties.items())
    path.write_text("".join(lines), encoding="utf-8")


# How often a thread of GNU's OpenMP, which is torch's on Linux, looks for work before it sleeps:
# for half a millisecond on a recent Intel. To wake up takes as long as many a layer, on a virtual
# machine above all. By default it looks for much longer, and where other processes want the same
# cores, a forward then takes many times as long. Other OpenMPs know the policy alone.
WAITING_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


def waiting_threads(given: Mapping[str, str]) -> dict[str, str]:
    """WAITING_THREADS, or nothing where an environment says of its own how threads wait."""
    return {} if WAITING_THREADS.keys() & given.keys() else dict(WAITING_THREADS)


REPOSITORY = Path(__file__).resolve().parents[5]
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
