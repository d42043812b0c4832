"""Logging of a replica: to its stderr, which Ray collects on each node."""

import logging
import sys

from d2serve.servers.asgi.config import LOG_FORMAT
from d2serve.serving.log_context import install_request_ids

PACKAGE = "d2serve"


def configure_logging() -> None:
    """Log d2serve's messages to stderr, with the ids of requests; Ray's own are not affected."""
    package = logging.getLogger(PACKAGE)
    if package.handlers:
        return
    # Ray Serve may have replaced sys.stderr by its own log file.
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    install_request_ids(handler)
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    package.propagate = False
