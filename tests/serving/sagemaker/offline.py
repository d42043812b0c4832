"""Serves a package in a network of its own that has loopback alone; run inside `unshare --net`.

Prints the answer to one picture.
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

WITHIN_S = 120
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def switch_loopback_on() -> None:
    """A new network's loopback is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def interfaces() -> set[str]:
    """The names of this network's interfaces."""
    return {name for _, name in socket.if_nameindex()}


def main(package: Path, picture: Path) -> None:
    switch_loopback_on()
    assert interfaces() == {"lo"}
    environment = container_environment("realtime", {})
    with (
        tempfile.TemporaryDirectory() as log_dir,
        running_container(package, environment, log_dir=Path(log_dir)) as container,
    ):
        container.wait_until_healthy(WITHIN_S)
        url = f"{container.url}/invocations"
        answer = httpx.post(url, content=picture.read_bytes(), timeout=WITHIN_S, trust_env=False)
        print(answer.raise_for_status().text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
