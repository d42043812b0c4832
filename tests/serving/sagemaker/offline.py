"""Serve a package in a network namespace that has only loopback; run inside `unshare --net`.

Prints the response to one image.
"""

import fcntl
import socket
import struct
import sys
import tempfile
from pathlib import Path

import httpx

from d2serve.aws.containers import container_environment
from d2serve.aws.local_container import running_container

TIMEOUT_S = 120
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def enable_loopback() -> None:
    """Enable loopback, which is down in a new namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def interfaces() -> set[str]:
    """The names of the namespace's interfaces."""
    return {name for _, name in socket.if_nameindex()}


def main(package: Path, image: Path) -> None:
    enable_loopback()
    assert interfaces() == {"lo"}
    environment = container_environment("realtime", {})
    with (
        tempfile.TemporaryDirectory() as log_dir,
        running_container(package, environment, log_dir=Path(log_dir)) as container,
    ):
        container.wait_until_healthy(TIMEOUT_S)
        url = f"{container.url}/invocations"
        response = httpx.post(url, content=image.read_bytes(), timeout=TIMEOUT_S, trust_env=False)
        print(response.raise_for_status().text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
