"""Waits for what AWS takes minutes for."""

from collections.abc import Callable, Mapping
from typing import Any

from tenacity import RetryError, Retrying, retry_if_result, stop_after_attempt, wait_fixed

from scripts.aws.account import Account
from scripts.aws.logs import ENDPOINTS, log_tail
from scripts.aws.steps import UnsettledError
from scripts.errors import CommandError

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
