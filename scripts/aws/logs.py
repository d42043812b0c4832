"""The end of a container's CloudWatch log."""

from datetime import datetime, timezone

from scripts.aws.account import Account
from scripts.aws.errors import AwsError

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
