"""Threads take turns at work that consists of many short numpy calls.

Each such call lets go of Python's interpreter and takes it back. Two threads at it would hand it to
and fro and wake each other every few microseconds: together they take longer than one after the
other, and so does whatever else runs in Python.
"""

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")

_turn = RLock()


def in_turn(work: Callable[Given, Result]) -> Callable[Given, Result]:
    """One thread at a time, of all functions together that are decorated so."""

    @wraps(work)
    def waiting(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        with _turn:
            return work(*args, **kwargs)

    return waiting
