"""What the tests ask of a running server, whoever started it."""

import os
import subprocess
from typing import Protocol

import psutil

from scripts.server_logs import ServerLogs


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
    """The processes behind the server that run the handler."""
    return [process for process in psutil.process_iter() if _is_worker(process, served)]


def worker_of(served: Served) -> psutil.Process:
    """The only worker."""
    [worker] = workers_of(served)
    return worker


def _is_worker(process: psutil.Process, served: Served) -> bool:
    try:
        # The server heads a process group of its own.
        in_group = os.getpgid(process.pid) == served.process.pid
        return in_group and "model_service_worker" in str(process.cmdline())
    except (ProcessLookupError, psutil.Error):
        return False
