"""Remove an endpoint and the resources that deploy created."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from d2serve.aws import scaling
from d2serve.aws.account import Account, connect
from d2serve.aws.api import Call
from d2serve.aws.deployment import check_endpoint_name
from d2serve.aws.existing import Existing, find_existing
from d2serve.aws.options import add_region
from d2serve.aws.resources import delete_config, delete_endpoint, delete_model
from d2serve.aws.steps import Step, carry_out, show, wait_until_gone
from d2serve.cli.run import run


def main(
    arguments: Sequence[str] | None = None, connect: Callable[[str | None], Account] = connect
) -> int:
    """Remove it, or show the calls that would."""
    given = _parser().parse_args(arguments)
    check_endpoint_name(given.endpoint)
    account = connect(given.region)
    steps = undeploy_plan(account, given.endpoint, find_existing(account, given.endpoint))
    if given.dry_run:
        show(account, steps)
    elif steps:
        carry_out(account, steps)
        account.console.print(f"{given.endpoint} is gone, and all that was made for it.")
    else:
        account.console.print(f"d2serve has nothing called {given.endpoint} in {account.region}.")
    return 0


def undeploy_plan(account: Account, endpoint: str, existing: Existing) -> list[Step]:
    """The steps, in an order that can be taken up again where it broke off.

    The models come last: they tell where the packages lie.
    """
    calls = [delete_config(name) for name in existing.configs]
    calls += _delete_packages(account, endpoint, existing)
    calls += [delete_model(name) for name in existing.models]
    remove_endpoint = Step(
        delete_endpoint(endpoint), settle=partial(wait_until_gone, account, endpoint)
    )
    return [
        *(Step(call) for call in _remove_scaling(endpoint, existing)),
        *([remove_endpoint] if existing.endpoint else []),
        *(Step(call) for call in calls),
    ]


def _remove_scaling(endpoint: str, existing: Existing) -> list[Call]:
    present = existing.scaling
    return [
        *([scaling.delete_alarm(endpoint)] if present.alarm else []),
        *(scaling.delete_policy(endpoint, name) for name in present.own_policies),
        *([scaling.deregister(endpoint)] if present.target and existing.endpoint else []),
    ]


def _delete_packages(account: Account, endpoint: str, existing: Existing) -> list[Call]:
    """Of the packages in the endpoint's folder those that deploy uploaded: they bear a digest."""
    return [
        Call("s3", "delete_object", {"Bucket": bucket, "Key": item["Key"]})
        for bucket, folder in _folders(endpoint, existing)
        for item in account.list_all(
            "s3", "list_objects_v2", "Contents", Bucket=bucket, Prefix=folder
        )
        if "sha256" in account.ask("s3", "head_object", Bucket=bucket, Key=item["Key"])["Metadata"]
    ]


def _folders(endpoint: str, existing: Existing) -> list[tuple[str, str]]:
    """Bucket and key of .../ENDPOINT/ in the models' s3:// addresses."""
    folders = set()
    for url in existing.models.values():
        bucket, _, key = url.removeprefix("s3://").partition("/")
        before, found, _ = key.rpartition(f"/{endpoint}/")
        if found:
            folders.add((bucket, f"{before}{found}"))
    return sorted(folders)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="undeploy", description=__doc__)
    parser.add_argument("--endpoint", required=True, help="its name")
    add_region(parser)
    return parser


if __name__ == "__main__":
    run(main)
