"""Ports for servers that the tests start by their command lines."""

from scripts.errors import CommandError
from scripts.ports import Ports


def first_of_three() -> int:
    """A free port whose next two are free as well."""
    while True:
        port = Ports.free().inference
        try:
            return Ports.starting_at(port).inference
        except CommandError:
            continue
