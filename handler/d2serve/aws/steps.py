"""Run calls in order with rollback; wait for slow changes; read container logs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from tenacity import RetryError, Retrying, retry_if_result, stop_after_attempt, wait_fixed

from d2serve.aws.account import Account
from d2serve.aws.api import AwsError, Call
from d2serve.errors import CommandError


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


ENDPOINTS = "/aws/sagemaker/Endpoints/{name}"
TRANSFORM_JOBS = "/aws/sagemaker/TransformJobs"
LINES = 30


def log_tail(account: Account, group: str, prefix: str | None = None) -> str:
    """The last lines of the group's latest stream, of those that start with `prefix`.

    Never raises an AwsError: it goes along with another failure, which must not be lost.
    """
    try:
        return _tail(account, group, prefix)
    except AwsError as error:
        return f"(its log {group} cannot be read: {error})"


def _tail(account: Account, group: str, prefix: str | None) -> str:
    parameters = {"logGroupName": group}
    if prefix:
        parameters["logStreamNamePrefix"] = prefix
    streams = account.list_all("logs", "describe_log_streams", "logStreams", **parameters)
    if not streams:
        return f"(its log {group} is empty)"
    latest = max(streams, key=lambda stream: stream.get("lastEventTimestamp", 0))
    events = account.ask(
        "logs",
        "get_log_events",
        logGroupName=group,
        logStreamName=latest["logStreamName"],
        limit=LINES,
        startFromHead=False,
    )["events"]
    lines = [f"{_time(event['timestamp'])} {event['message'].rstrip()}" for event in events]
    return "\n".join([f"the end of {group}, {latest['logStreamName']}:", *lines])


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).strftime("%H:%M:%S")


POLL_S = 15.0
LONGEST_S = 2 * 3600.0
IN_TRANSIT = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")


def wait_while(
    account: Account,
    look: Callable[[], Mapping[str, Any] | None],
    key: str,
    busy: tuple[str, ...],
    *,
    longest_s: float = LONGEST_S,
) -> dict[str, Any]:
    """What `look` sees once its `key` is none of `busy`; empty once it sees nothing.

    Raises:
        UnsettledError: it is busy after `longest_s`.
    """
    with account.console.status("") as status:

        def look_and_tell() -> dict[str, Any]:
            seen = dict(look() or {})
            status.update(f"{seen.get(key, 'gone')}, looking again every {POLL_S:g} s")
            return seen

        polling = Retrying(
            stop=stop_after_attempt(int(longest_s / POLL_S)),
            wait=wait_fixed(POLL_S),
            retry=retry_if_result(lambda seen: seen.get(key) in busy),
            sleep=account.sleep,
        )
        try:
            return polling(look_and_tell)
        except RetryError:
            raise UnsettledError(
                f"AWS was not done within {longest_s / 3600:g} hours; everything was left as it is"
            ) from None


def wait_until_serving(account: Account, endpoint: str, config: str) -> None:
    """Returns once the endpoint serves with this configuration.

    Raises:
        UnsettledError: the endpoint is stuck, or still at it after two hours.
        CommandError: it failed, or AWS went back to the configuration before; with the log's end.
    """
    seen = wait_while(account, lambda: _endpoint(account, endpoint), "EndpointStatus", IN_TRANSIT)
    status, is_new = seen.get("EndpointStatus"), seen.get("EndpointConfigName") == config
    if status == "InService" and is_new:
        return
    reason = seen.get("FailureReason", "AWS gives no reason")
    log = log_tail(account, ENDPOINTS.format(name=endpoint))
    if status == "InService":
        raise CommandError(f"{endpoint}: AWS rolled the update back ({reason}); {log}")
    message = f"{endpoint} is {status}: {reason}; {log}"
    raise UnsettledError(message) if status == "UpdateRollbackFailed" else CommandError(message)


def wait_until_updated(account: Account, endpoint: str, config: str) -> None:
    """As `wait_until_serving`, for an endpoint that serves already.

    Raises:
        UnsettledError: also where it is interrupted or fails with the new configuration in use.
    """
    try:
        wait_until_serving(account, endpoint, config)
    except KeyboardInterrupt:
        raise UnsettledError(
            f"interrupted; AWS goes on with the update of {endpoint}, and nothing was taken back. "
            "Run the same command again once it is done"
        ) from None
    except UnsettledError:
        raise
    except CommandError as error:
        seen = _endpoint(account, endpoint)
        if seen and seen["EndpointConfigName"] == config:
            raise UnsettledError(str(error)) from error
        raise


def wait_until_gone(account: Account, endpoint: str) -> None:
    """Returns once there is no such endpoint."""
    seen = wait_while(account, lambda: _endpoint(account, endpoint), "EndpointStatus", IN_TRANSIT)
    if seen:
        raise CommandError(
            f"{endpoint} could not be deleted: it is {seen['EndpointStatus']} "
            f"({seen.get('FailureReason', 'AWS gives no reason')})"
        )


def _endpoint(account: Account, endpoint: str) -> dict[str, Any] | None:
    return account.find("sagemaker", "describe_endpoint", EndpointName=endpoint)
