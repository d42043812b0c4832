"""Deploy a package to a SageMaker endpoint."""

import argparse
from collections.abc import Callable, Sequence

from d2serve.aws.account import Account, connect
from d2serve.aws.context import NOBODY, Site, find_site, imagined_site
from d2serve.aws.deployment import OPTIONS, Deployment
from d2serve.aws.existing import Existing, find_existing
from d2serve.aws.options import (
    add_network,
    add_package,
    add_site,
    environment_of,
    listed,
    package_of,
)
from d2serve.aws.plan import deploy_plan
from d2serve.aws.resources import first_upload, package_key, upload_steps
from d2serve.aws.steps import Step, carry_out, show
from d2serve.cli.run import run


def main(
    arguments: Sequence[str] | None = None, connect: Callable[[str | None], Account] = connect
) -> int:
    """Make or update the endpoint, or show the calls that would."""
    given = _parser().parse_args(arguments)
    deployment = _deployment(given)
    account = connect(given.region)
    if given.dry_run and not account.has_credentials():
        account.console.print(
            f"No credentials: the account {NOBODY.account_id} stands for yours, and is empty."
        )
        show(account, _imagined_plan(account, deployment, given))
        return 0
    site = find_site(account, given.role, given.bucket)
    steps = _plan(account, deployment, site)
    if given.dry_run:
        show(account, steps)
    elif steps:
        carry_out(account, steps)
        account.console.print(f"{deployment.endpoint} is in service in {site.region}.")
    else:
        account.console.print(f"{deployment.endpoint} is as it should be; nothing to change.")
    return 0


def _plan(account: Account, deployment: Deployment, site: Site) -> list[Step]:
    existing = find_existing(account, deployment.endpoint)
    upload = upload_steps(account, deployment.package, site, package_key(deployment))
    return deploy_plan(account, deployment, site, existing, upload)


def _imagined_plan(
    account: Account, deployment: Deployment, given: argparse.Namespace
) -> list[Step]:
    site = imagined_site(account, given.role, given.bucket)
    upload = first_upload(
        deployment.package,
        site,
        package_key(deployment),
        in_new_bucket=site.is_default_bucket(),
    )
    return deploy_plan(account, deployment, site, Existing(), upload)


def _deployment(given: argparse.Namespace) -> Deployment:
    return Deployment(
        package=package_of(given, multi_model=given.mode == "mme"),
        endpoint=given.endpoint,
        mode=given.mode,
        instance=given.instance,
        instances=given.instances,
        min_instances=given.min_instances,
        max_instances=given.max_instances,
        target_invocations=given.target_invocations,
        memory_mb=given.memory_mb,
        max_concurrency=given.max_concurrency,
        environment=environment_of(given),
        prefix=given.prefix,
        kms_key=given.kms_key,
        data_capture=given.data_capture,
        subnets=listed(given.subnets),
        security_groups=listed(given.security_groups),
        network_isolation=given.network_isolation,
        alarms=tuple(given.alarm),
        output=given.output,
        success_topic=given.success_topic,
        error_topic=given.error_topic,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deploy", description=__doc__)
    add_package(parser)
    parser.add_argument("--endpoint", required=True, help="its name, such as shapes")
    parser.add_argument("--mode", choices=OPTIONS, default="realtime", help="default: %(default)s")
    add_site(parser)
    add_network(parser)
    _add_capacity(parser)
    _add_extras(parser)
    return parser


def _add_capacity(parser: argparse.ArgumentParser) -> None:
    capacity = parser.add_argument_group("capacity")
    capacity.add_argument("--instance", metavar="TYPE", help="default: ml.m5.xlarge")
    capacity.add_argument("--instances", type=int, metavar="N", help="at the start; default: 1")
    capacity.add_argument("--max-instances", type=int, metavar="N", help="scales automatically")
    capacity.add_argument("--min-instances", type=int, metavar="N", help="default: 1, async 0")
    capacity.add_argument(
        "--target-invocations",
        type=float,
        metavar="N",
        help="per instance: a minute, default 300; async: waiting, default 5",
    )
    capacity.add_argument("--memory-mb", type=int, metavar="MB", help="serverless; default: 6144")
    capacity.add_argument("--max-concurrency", type=int, metavar="N", help="serverless; default: 5")


def _add_extras(parser: argparse.ArgumentParser) -> None:
    extras = parser.add_argument_group("extras")
    extras.add_argument(
        "--data-capture", type=int, metavar="PERCENT", help="realtime: requests kept in S3"
    )
    extras.add_argument(
        "--alarm",
        action="append",
        default=[],
        metavar="NAME",
        help="a CloudWatch alarm that rolls an update back; repeatable",
    )
    extras.add_argument("--output", metavar="s3://...", help="async: where answers go")
    extras.add_argument("--success-topic", metavar="ARN", help="async: SNS topic")
    extras.add_argument("--error-topic", metavar="ARN", help="async: SNS topic")


if __name__ == "__main__":
    run(main)
