"""What the tests ask of a running server, whoever started it."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import psutil
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from d2serve.servers.torchserve.launcher.server import MODEL, REQUESTS, ServerLogs

WRITTEN_WITHIN_S = 10
Found = TypeVar("Found")


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


def written_soon(read: Callable[[], Found]) -> Found:
    """What is read, once it is something: the server writes logs and metrics after it answers."""
    polling = Retrying(
        stop=stop_after_delay(WRITTEN_WITHIN_S),
        wait=wait_fixed(0.05),
        retry=retry_if_result(lambda found: not found),
    )
    return polling(read)


def request_line(served: Served, request_id: str) -> dict[str, Any]:
    """What the worker has logged of a request; the server may still be writing it."""
    pattern = re.compile(rf'{{"event": "request".*"{request_id}".*')
    [text] = written_soon(lambda: pattern.findall(_log(served)))
    line: dict[str, Any] = json.loads(text)
    return line


def _log(served: Served) -> str:
    """Requests have a file of their own with our log configuration alone."""
    return served.logs.text(MODEL) + served.logs.text(REQUESTS)


def _is_worker(process: psutil.Process, served: Served) -> bool:
    try:
        # The server heads a process group of its own.
        in_group = os.getpgid(process.pid) == served.process.pid
        return in_group and "model_service_worker" in str(process.cmdline())
    except (ProcessLookupError, psutil.Error):
        return False
