"""Which pictures go through the network together."""

from collections.abc import Hashable, Sequence


def group(keys: Sequence[Hashable], limit: int) -> list[list[int]]:
    """Indices of equal keys together, in order, at most `limit` in a group.

    Args:
        keys: what pictures that run together must have in common, one per picture.
        limit: the largest group, at least 1.
    """
    alike: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        alike.setdefault(key, []).append(index)
    return [
        indices[start : start + limit]
        for indices in alike.values()
        for start in range(0, len(indices), limit)
    ]
