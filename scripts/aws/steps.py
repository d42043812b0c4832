"""Carries calls out one after another, and takes them back when one fails."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.aws.account import Account
from scripts.aws.calls import Call
from scripts.aws.errors import AwsError
from scripts.errors import CommandError


class UnsettledError(CommandError):
    """AWS is still at work, or stuck: to take anything away now could stop what serves."""


@dataclass(frozen=True)
class Step:
    """One call that changes something.

    Args:
        call: what to do.
        undo: what takes it back, None where nothing does or needs to.
        settle: waits until AWS is done with it, or raises what went wrong.
        is_final: once it is settled, it and the steps before it stay, whatever follows.
    """

    call: Call
    undo: Call | None = None
    settle: Callable[[], None] | None = None
    is_final: bool = False


def show(account: Account, steps: Sequence[Step]) -> None:
    """Prints the calls in order, and makes none."""
    for step in steps:
        account.console.print(str(step.call))
    account.console.print(f"Dry run: {len(steps)} calls shown, none made.")


def carry_out(account: Account, steps: Sequence[Step]) -> None:
    """Takes every step; where one fails, takes back those before it and raises its failure."""
    undos: list[Call] = []
    answer: Mapping[str, Any] = {}
    try:
        for step in steps:
            account.console.print(step.call.name)
            answer = account.carry_out(step.call.bound(answer))
            undos += [step.undo] if step.undo else []
            if step.settle:
                step.settle()
            if step.is_final:
                undos.clear()
    except UnsettledError:
        raise
    except BaseException:
        take_back(account, undos)
        raise


def take_back(account: Account, undos: Sequence[Call]) -> None:
    """Undoes the latest first; where that fails it tells what stays, as the rest may be in use."""
    remaining = list(undos)
    while remaining:
        account.console.print(f"taking back: {remaining[-1].name}")
        try:
            account.carry_out(remaining[-1])
        except AwsError as error:
            left = "\n".join(str(call) for call in reversed(remaining))
            account.console.print(f"could not clean up: {error}\nstill to be done:\n{left}")
            return
        remaining.pop()
