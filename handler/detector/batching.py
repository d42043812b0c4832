"""Which pictures go through the network together."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def group(
    items: Iterable[Item], key: Callable[[Item], Hashable], limit: int
) -> Iterator[list[tuple[int, Item]]]:
    """Items of equal keys together, each with its position: full groups at once, then the others.

    Nothing is taken from `items` before it is needed, so that what takes its time to come can do so
    while a full group is worked on.

    Args:
        items: in any number.
        key: what items of one group have in common.
        limit: the largest group, at least 1.
    """
    alike: dict[Hashable, list[tuple[int, Item]]] = {}
    for entry in enumerate(items):
        shared = key(entry[1])
        alike.setdefault(shared, []).append(entry)
        if len(alike[shared]) == limit:
            yield alike.pop(shared)
    yield from alike.values()
