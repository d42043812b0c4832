"""Apply AWS calls in order, with rollback."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d2serve.aws.account import Account
from d2serve.aws.api import Call
from d2serve.errors import AwsError, UnsettledError


@dataclass(frozen=True)
class Step:
    """One call that changes something.

    Attributes:
        call: the change.
        undo: call that reverts it; None where a rollback does not need one.
        wait: returns once AWS has completed the change, or raises the reason of its failure.
        is_final: whether this step and those before it stay, even if a later step fails.
    """

    call: Call
    undo: Call | None = None
    wait: Callable[[], None] | None = None
    is_final: bool = False


def show_steps(account: Account, steps: Sequence[Step]) -> None:
    """Print the calls of a dry run."""
    for step in steps:
        account.console.print(str(step.call))
    account.console.print(f"Dry run: {len(steps)} calls shown, none made.")


def apply_steps(account: Account, steps: Sequence[Step]) -> None:
    """Apply all steps; roll the completed ones back and re-raise if one fails.

    Raises:
        UnsettledError: AWS has not completed a step; without a rollback.
        CommandError: a step failed.
    """
    undos: list[Call] = []
    response: Mapping[str, Any] = {}
    try:
        for step in steps:
            account.console.print(step.call.name)
            response = account.apply(step.call.resolve(response))
            undos += [step.undo] if step.undo else []
            if step.wait:
                step.wait()
            if step.is_final:
                undos.clear()
    except UnsettledError:
        raise
    except BaseException:
        roll_back(account, undos)
        raise


def roll_back(account: Account, undos: Sequence[Call]) -> None:
    """Apply the calls in reverse order; stop and print the remaining ones if one fails.

    The remaining resources may be in use by the one that could not be removed.
    """
    remaining = list(undos)
    while remaining:
        account.console.print(f"rolling back: {remaining[-1].name}")
        try:
            account.apply(remaining[-1])
        except AwsError as error:
            calls = "\n".join(str(call) for call in reversed(remaining))
            account.console.print(f"rollback failed: {error}\nremaining calls:\n{calls}")
            return
        remaining.pop()
