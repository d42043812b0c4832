"""The kinds of requests in a soak, each with what it is to be answered with."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.load.requests import Group, Request
from bench.soak.expected import Expected


@dataclass(frozen=True)
class Kind:
    """One kind of request.

    Attributes:
        request: what is sent.
        expected: the answer; None where the client is gone before it would come.
        hostile: whether it is meant to do harm.
    """

    request: Request
    expected: Expected | None
    hostile: bool

    @property
    def name(self) -> str:
        """The request's."""
        return self.request.name


def groups_of(kinds: Sequence[Kind], hostile_share: float) -> list[Group]:
    """What the generator is to send; `hostile_share` is 0..1 of the requests."""
    shares = {False: 1.0 - hostile_share, True: hostile_share}
    return [
        Group(share, [kind.request for kind in kinds if kind.hostile == hostile])
        for hostile, share in shares.items()
        if share
    ]
