"""Processes and logs of a running server."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import psutil

from d2serve.servers.torchserve.launcher.server import MODEL, REQUESTS, ServerLogs
from tests.polling import wait_until
from tests.serving.asgi_server import SERVER_PROCESS

# Start of the command line of a replica, as a list.
RAY_REPLICA = "['ray::ServeReplica"
Value = TypeVar("Value")


class Served(Protocol):
    """A running server with one model."""

    @property
    def url(self) -> str: ...
    @property
    def model_name(self) -> str: ...
    @property
    def logs(self) -> ServerLogs: ...
    @property
    def process(self) -> subprocess.Popen[bytes]: ...


def workers_of(served: Served) -> list[psutil.Process]:
    """The processes that run the model."""
    return [process for process in psutil.process_iter() if _is_worker(process, served)]


def worker_of(served: Served) -> psutil.Process:
    """The only worker; a replica of Ray has its title some time after its model is loaded."""
    [worker] = wait_until(lambda: workers_of(served), every_s=0.1)
    return worker


def connections_of(process: psutil.Process) -> "list[Any]":
    """Its TCP sockets; none if it has ended: TorchServe starts short-lived processes."""
    try:
        return list(process.net_connections("tcp"))
    except psutil.NoSuchProcess:
        return []


def read_until_written(read: Callable[[], Value]) -> Value:
    """Read until there is a value: the server writes logs and metrics after its response."""
    return wait_until(read, every_s=0.05)


def request_line(served: Served, request_id: str) -> dict[str, Any]:
    """The log line of a request, which the server may still be writing."""
    pattern = re.compile(rf'{{"event": "request".*"{request_id}".*')
    [text] = read_until_written(lambda: pattern.findall(_log(served)))
    line: dict[str, Any] = json.loads(text)
    return line


def _log(served: Served) -> str:
    """Requests have a separate file only with d2serve's log configuration."""
    return served.logs.text(MODEL) + served.logs.text(REQUESTS)


def _is_worker(process: psutil.Process, served: Served) -> bool:
    try:
        command = str(process.cmdline())
        if SERVER_PROCESS in command:
            return process.ppid() == served.process.pid
        if command.startswith(RAY_REPLICA):
            return os.getsid(process.pid) == served.process.pid
        if "ray::ServeReplica:" in command:
            return served.process.pid in [parent.pid for parent in process.parents()]
        # TorchServe heads its own process group.
        in_group = os.getpgid(process.pid) == served.process.pid
        return in_group and "model_service_worker" in command
    except (ProcessLookupError, psutil.Error):
        return False
