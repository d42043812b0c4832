"""TorchServe's config.properties and the environment of its processes."""

from collections.abc import Mapping
from pathlib import Path

from d2serve.servers.exposure import url_host
from d2serve.servers.openmp import openmp_settings
from d2serve.servers.torchserve.draining import KEY_FILE as KEY_FILE_VARIABLE
from d2serve.servers.torchserve.launcher.network import KEY_FILE, Exposure
from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.proxy.proxy import (
    CERTIFICATE,
    CORS_ORIGINS,
    KEY,
    PUBLIC_ADDRESS,
    SERVER_ADDRESS,
)

CONFIG_FILE = Path(__file__).with_name("config.properties")
METRICS_CONFIG = "metrics_config"
METRICS_FILE = Path(__file__).parents[1] / "metrics.yaml"
LOCAL_EXPOSURE = Exposure()


def read_properties(path: Path) -> dict[str, str]:
    """Return the `key=value` lines of a properties file, without comments.

    The encoding is Java's, in which every file can be read.
    """
    lines = (line.strip() for line in path.read_text(encoding="latin-1").splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write a properties file that both Java and TorchServe's Python reader understand.

    Java reads it as Latin-1, and other characters as escapes, such as those of a path.
    """
    lines = (f"{key}={_escaped(value)}\n" for key, value in properties.items())
    path.write_text("".join(lines), encoding="ascii")


def _escaped(value: str) -> str:
    r"""Escape backslashes, and other characters than ASCII as the \uXXXX of their UTF-16 units.

    Examples:
        >>> print(_escaped("Projet é/模型"))
        Projet \u00e9/\u6a21\u578b
    """
    units = value.replace("\\", r"\\").encode("utf-16-be", "surrogatepass")
    codes = (int.from_bytes(units[start : start + 2], "big") for start in range(0, len(units), 2))
    return "".join(chr(code) if code < 128 else f"\\u{code:04x}" for code in codes)


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
        | utf8_locale(inherited)
    )


def utf8_locale(environment: Mapping[str, str]) -> dict[str, str]:
    """The variable that makes Java encode paths as UTF-8, if the locale does not.

    In the locale C, Java replaces all characters of paths and arguments that are not ASCII.

    Examples:
        >>> utf8_locale({"LC_ALL": "C", "LANG": "en_US.UTF-8"})
        {'LC_ALL': 'C.UTF-8'}
        >>> utf8_locale({"LANG": "en_US.UTF-8"})
        {}
    """
    locales = (environment.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    encoding = next(filter(None, locales), "C").partition("@")[0].rpartition(".")[2]
    return {} if encoding.lower() in ("utf-8", "utf8") else {"LC_ALL": "C.UTF-8"}


def proxy_environment(public: Ports, internal: Ports, exposure: Exposure) -> dict[str, str]:
    """The variables that make a worker open the public port in front of TorchServe's own.

    Args:
        public: the ports that clients use.
        internal: the ports that TorchServe listens on.
        exposure: the proxy's address and certificate, and the web pages that may use it.
    """
    addresses = {
        PUBLIC_ADDRESS: f"{url_host(exposure.address)}:{public.inference}",
        SERVER_ADDRESS: f"http://{LOOPBACK}:{internal.inference}",
        CORS_ORIGINS: ",".join(exposure.cors_origins),
    }
    if exposure.certificate is None:
        return addresses
    return addresses | {
        CERTIFICATE: str(exposure.certificate.chain.resolve()),
        KEY: str(exposure.certificate.key.resolve()),
    }
