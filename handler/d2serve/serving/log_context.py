"""The ids of the requests that a thread works for, in each line that it logs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_request_ids: ContextVar[tuple[str, ...]] = ContextVar("request_ids", default=())


@contextmanager
def request_context(*request_ids: str) -> Iterator[None]:
    """Log lines of this thread or task belong to these requests while the `with` block runs."""
    token = _request_ids.set(request_ids)
    try:
        yield
    finally:
        _request_ids.reset(token)


class RequestIdFormatter(logging.Formatter):
    """Puts the ids of the current requests before each line, those of tracebacks included.

    Servers such as TorchServe log a process's output line by line, so that the lines of a
    traceback would lose their request.

    Args:
        base: formats the record.

    Examples:
        >>> record = logging.LogRecord("d2serve", logging.INFO, "", 0, "decoded", (), None)
        >>> with request_context("42"):
        ...     RequestIdFormatter(logging.Formatter()).format(record)
        '[42] decoded'
    """

    def __init__(self, base: logging.Formatter) -> None:
        super().__init__()
        self._base = base

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        text = self._base.format(record)
        request_ids = ",".join(filter(None, _request_ids.get()))
        if not request_ids:
            return text
        return "\n".join(f"[{request_ids}] {line}" for line in text.splitlines())


def install_request_ids(handler: logging.Handler) -> None:
    """Make a handler of log records write the ids of requests; a second call has no effect."""
    if not isinstance(handler.formatter, RequestIdFormatter):
        handler.setFormatter(RequestIdFormatter(handler.formatter or logging.Formatter()))
