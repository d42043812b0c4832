"""Libraries that only some users have."""

from importlib import import_module
from typing import Any

from d2serve.errors import CommandError


def require_library(name: str) -> Any:
    """Import a library by the name of its package.

    Raises:
        CommandError: it is not installed.

    Examples:
        >>> require_library("json").dumps([1])
        '[1]'
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise CommandError(f"{name} is not installed: pip install {name}") from error
