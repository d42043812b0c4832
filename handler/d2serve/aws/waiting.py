"""Wait for slow changes of AWS, and read a container's log when one fails."""

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from tenacity import RetryError, Retrying, retry_if_result, stop_after_attempt, wait_fixed

from d2serve.aws.account import Account
from d2serve.errors import AwsError, CommandError, UnsettledError

POLL_S = 15.0
TIMEOUT_S = 2 * 3600.0
IN_TRANSIT = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
ENDPOINT_LOGS = "/aws/sagemaker/Endpoints/{name}"
TRANSFORM_LOGS = "/aws/sagemaker/TransformJobs"
LOG_LINES = 30
NO_REASON = "AWS gives no reason"


def wait_until_serving(account: Account, endpoint: str, config: str) -> None:
    """Return once the endpoint serves with the configuration of that name.

    Raises:
        UnsettledError: the endpoint is stuck, or still in transit after TIMEOUT_S.
        CommandError: it failed, or AWS rolled back; with the end of its log.
    """
    found = wait_while(
        account, lambda: _describe(account, endpoint), "EndpointStatus", busy=IN_TRANSIT
    )
    status, is_new = found.get("EndpointStatus"), found.get("EndpointConfigName") == config
    if status == "InService" and is_new:
        return
    reason = found.get("FailureReason", NO_REASON)
    log = log_tail(account, ENDPOINT_LOGS.format(name=endpoint))
    if status == "InService":
        raise CommandError(f"{endpoint}: AWS rolled the update back ({reason}); {log}")
    message = f"{endpoint} is {status}: {reason}; {log}"
    raise UnsettledError(message) if status == "UpdateRollbackFailed" else CommandError(message)


def wait_until_updated(account: Account, endpoint: str, config: str) -> None:
    """Wait as `wait_until_serving` does, for an endpoint that serves already.

    Raises:
        UnsettledError: also when interrupted, or when it failed with the new configuration in use.
    """
    try:
        wait_until_serving(account, endpoint, config)
    except KeyboardInterrupt:
        raise UnsettledError(
            f"interrupted; AWS continues to update {endpoint}, and nothing was rolled back. "
            "Run the same command again when the update is complete"
        ) from None
    except UnsettledError:
        raise
    except CommandError as error:
        found = _describe(account, endpoint)
        if found and found["EndpointConfigName"] == config:
            raise UnsettledError(str(error)) from error
        raise


def wait_until_deleted(account: Account, endpoint: str) -> None:
    """Return once the endpoint does not exist.

    Raises:
        CommandError: AWS could not delete it.
    """
    found = wait_while(
        account, lambda: _describe(account, endpoint), "EndpointStatus", busy=IN_TRANSIT
    )
    if found:
        raise CommandError(
            f"{endpoint} could not be deleted: it is {found['EndpointStatus']} "
            f"({found.get('FailureReason', NO_REASON)})"
        )


def wait_while(
    account: Account,
    describe: Callable[[], Mapping[str, Any] | None],
    key: str,
    *,
    busy: tuple[str, ...],
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """Poll a resource while its status is one of `busy`.

    Args:
        account: shows the status on its console.
        describe: returns AWS's description, or None once the resource does not exist.
        key: field of the description that holds the status.
        busy: statuses to wait for.
        timeout_s: seconds to wait at most.

    Returns:
        The last description; empty if the resource does not exist.

    Raises:
        UnsettledError: the resource is still busy after `timeout_s`.
    """
    with account.console.status("") as display:

        def poll() -> dict[str, Any]:
            found = dict(describe() or {})
            display.update(f"{found.get(key, 'deleted')}, polling every {POLL_S:g} s")
            return found

        polling = Retrying(
            stop=stop_after_attempt(int(timeout_s / POLL_S)),
            wait=wait_fixed(POLL_S),
            retry=retry_if_result(lambda found: found.get(key) in busy),
            sleep=account.sleep,
        )
        try:
            return polling(poll)
        except RetryError:
            raise UnsettledError(
                f"AWS did not complete the change within {timeout_s / 3600:g} hours; nothing was "
                "rolled back"
            ) from None


def log_tail(account: Account, group: str, prefix: str | None = None) -> str:
    """Return the last lines of a log group's latest stream.

    An AwsError becomes part of the text, because it must not hide the failure to report.

    Args:
        account: the account.
        group: name of the log group.
        prefix: considers only streams whose names start with it.
    """
    try:
        return _read_log(account, group, prefix)
    except AwsError as error:
        return f"(its log {group} cannot be read: {error})"


def _read_log(account: Account, group: str, prefix: str | None) -> str:
    parameters = {"logGroupName": group}
    if prefix:
        parameters["logStreamNamePrefix"] = prefix
    streams = account.list_all("logs", "describe_log_streams", "logStreams", **parameters)
    if not streams:
        return f"(its log {group} is empty)"
    latest = max(streams, key=lambda stream: stream.get("lastEventTimestamp", 0))
    events = account.read(
        "logs",
        "get_log_events",
        logGroupName=group,
        logStreamName=latest["logStreamName"],
        limit=LOG_LINES,
        startFromHead=False,
    )["events"]
    lines = [f"{_time(event['timestamp'])} {event['message'].rstrip()}" for event in events]
    return "\n".join([f"the end of {group}, {latest['logStreamName']}:", *lines])


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).strftime("%H:%M:%S")


def _describe(account: Account, endpoint: str) -> dict[str, Any] | None:
    return account.find("sagemaker", "describe_endpoint", EndpointName=endpoint)
