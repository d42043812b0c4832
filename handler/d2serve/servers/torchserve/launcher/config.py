"""TorchServe's config.properties and the environment of its processes."""

from collections.abc import Mapping
from pathlib import Path

from d2serve.servers.exposure import url_host
from d2serve.servers.openmp import openmp_settings
from d2serve.servers.torchserve.draining import KEY_FILE as KEY_FILE_VARIABLE
from d2serve.servers.torchserve.launcher.network import KEY_FILE, Exposure
from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.proxy.proxy import CERTIFICATE, KEY, PUBLIC_ADDRESS, SERVER_ADDRESS

CONFIG_FILE = Path(__file__).with_name("config.properties")
METRICS_CONFIG = "metrics_config"
METRICS_FILE = Path(__file__).parents[1] / "metrics.yaml"
LOCAL_EXPOSURE = Exposure()


def read_properties(path: Path) -> dict[str, str]:
    """Return the `key=value` lines of a properties file, without comments."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write a properties file that both Java and TorchServe's Python reader understand."""
    lines = (f"{key}={value}\n" for key, value in properties.items())
    path.write_text("".join(lines), encoding="utf-8")


def server_properties(ports: Ports, exposure: Exposure = LOCAL_EXPOSURE) -> dict[str, str]:
    """The packaged config.properties with these ports, addresses and tokens."""
    return (
        read_properties(CONFIG_FILE)
        | {METRICS_CONFIG: str(METRICS_FILE)}
        | ports.as_properties()
        | exposure.as_properties(ports)
    )


def server_environment(
    environment: Mapping[str, str], home: Path, java_home: Path, log_dir: Path
) -> dict[str, str]:
    """The environment of TorchServe and its workers, based on this process's `environment`.

    It has no PYTHONPATH, which could make a worker import another d2serve than the archive's, and
    no TS_ variables, which take precedence over config.properties.
    """
    inherited = {
        key: value
        for key, value in environment.items()
        if key != "PYTHONPATH" and not key.startswith("TS_")
    }
    return (
        openmp_settings(inherited)
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


def proxy_environment(public: Ports, internal: Ports, exposure: Exposure) -> dict[str, str]:
    """The variables that make a worker open the public port in front of TorchServe's own.

    Args:
        public: the ports that clients use.
        internal: the ports that TorchServe listens on.
        exposure: the proxy's address and certificate.
    """
    addresses = {
        PUBLIC_ADDRESS: f"{url_host(exposure.address)}:{public.inference}",
        SERVER_ADDRESS: f"http://{LOOPBACK}:{internal.inference}",
    }
    if exposure.certificate is None:
        return addresses
    return addresses | {
        CERTIFICATE: str(exposure.certificate.chain.resolve()),
        KEY: str(exposure.certificate.key.resolve()),
    }
