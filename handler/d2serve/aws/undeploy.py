"""Remove an endpoint and the resources that deploy created."""

from functools import partial

from d2serve.aws import scaling
from d2serve.aws.account import Account
from d2serve.aws.api import Call
from d2serve.aws.deployment import check_endpoint_name
from d2serve.aws.existing import Existing, find_existing
from d2serve.aws.resources import delete_config, delete_endpoint, delete_model
from d2serve.aws.steps import Step, apply_steps, show_steps
from d2serve.aws.waiting import wait_until_deleted


def undeploy(account: Account, endpoint: str, *, dry_run: bool = False) -> None:
    """Remove an endpoint with its configurations, packages, models and scaling.

    Args:
        account: the account.
        endpoint: name of the endpoint.
        dry_run: print the calls instead of making them.

    Raises:
        CommandError: d2serve did not create the endpoint, or a call failed.
    """
    check_endpoint_name(endpoint)
    steps = undeploy_plan(account, endpoint, find_existing(account, endpoint))
    if dry_run:
        show_steps(account, steps)
    elif steps:
        apply_steps(account, steps)
        account.console.print(f"Removed {endpoint} and its resources.")
    else:
        account.console.print(f"{account.region} has no resources of d2serve named {endpoint}.")


def undeploy_plan(account: Account, endpoint: str, existing: Existing) -> list[Step]:
    """Order the steps so that a later run can resume after a failure.

    The models come last, because they contain the locations of the packages.
    """
    calls = [delete_config(name) for name in existing.configs]
    calls += _delete_packages(account, endpoint, existing)
    calls += [delete_model(name) for name in existing.models]
    remove_endpoint = Step(
        delete_endpoint(endpoint), wait=partial(wait_until_deleted, account, endpoint)
    )
    return [
        *(Step(call) for call in _remove_scaling(endpoint, existing)),
        *([remove_endpoint] if existing.endpoint else []),
        *(Step(call) for call in calls),
    ]


def _remove_scaling(endpoint: str, existing: Existing) -> list[Call]:
    current = existing.scaling
    return [
        *([scaling.delete_alarm(endpoint)] if current.alarm else []),
        *(scaling.delete_policy(endpoint, name) for name in current.own_policies),
        *([scaling.deregister(endpoint)] if current.target and existing.endpoint else []),
    ]


def _delete_packages(account: Account, endpoint: str, existing: Existing) -> list[Call]:
    """Delete the uploaded packages in the endpoint's folder, identified by their digest."""
    return [
        Call("s3", "delete_object", {"Bucket": bucket, "Key": item["Key"]})
        for bucket, folder in _folders(endpoint, existing)
        for item in account.list_all(
            "s3", "list_objects_v2", "Contents", Bucket=bucket, Prefix=folder
        )
        if "sha256" in account.read("s3", "head_object", Bucket=bucket, Key=item["Key"])["Metadata"]
    ]


def _folders(endpoint: str, existing: Existing) -> list[tuple[str, str]]:
    """Return bucket and key of .../ENDPOINT/ in the s3:// URLs of the models."""
    folders = set()
    for url in existing.models.values():
        bucket, _, key = url.removeprefix("s3://").partition("/")
        before, found, _ = key.rpartition(f"/{endpoint}/")
        if found:
            folders.add((bucket, f"{before}{found}"))
    return sorted(folders)
