"""The process behind a running server that runs the handler."""

import psutil

from scripts.torchserve import Server


def worker_of(server: Server) -> psutil.Process:
    """The only worker."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    [worker] = [child for child in children if "model_service_worker" in str(child.cmdline())]
    return worker
