"""`make transform`: all pictures under an S3 prefix through a package, by a SageMaker job."""

import argparse
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from scripts.aws.account import Account, connect
from scripts.aws.job import Job, job_steps
from scripts.aws.options import (
    add_network,
    add_package,
    add_site,
    environment_of,
    listed,
    package_of,
)
from scripts.aws.site import NOBODY, find_site, imagined_site
from scripts.aws.steps import carry_out, show, take_back
from scripts.aws.uploads import first_upload, upload_steps
from scripts.errors import run


def utc_now() -> datetime:
    """The time that a job's name carries."""
    return datetime.now(timezone.utc)


def main(
    arguments: Sequence[str] | None = None,
    connect: Callable[[str | None], Account] = connect,
    now: Callable[[], datetime] = utc_now,
) -> int:
    """Run the job to its end, or show the calls that would."""
    given = _parser().parse_args(arguments)
    job = _job(given, now())
    account = connect(given.region)
    if given.dry_run and not account.has_credentials():
        account.console.print(f"No credentials: the account {NOBODY.account_id} stands for yours.")
        site = imagined_site(account, given.role, given.bucket)
        new_bucket = site.is_default_bucket()
        upload = first_upload(job.package, site, job.package_key, in_new_bucket=new_bucket)
    else:
        site = find_site(account, given.role, given.bucket)
        upload = upload_steps(account, job.package, site, job.package_key)
    steps = [*upload, *job_steps(account, job, site)]
    if given.dry_run:
        show(account, steps)
        return 0
    carry_out(account, steps)
    # A new bucket may hold the answers by now.
    take_back(account, [s.undo for s in steps if s.undo and s.undo.operation != "delete_bucket"])
    account.console.print(f"{job.name} is done; its answers are in {job.output}")
    return 0


def _job(given: argparse.Namespace, now: datetime) -> Job:
    return Job(
        package=package_of(given),
        time=now,
        input=given.input,
        output=given.output,
        instance=given.instance,
        instances=given.instances,
        requests_at_once=given.requests_at_once,
        max_payload_mb=given.max_payload_mb,
        content_type=given.content_type,
        accept=given.accept,
        environment=environment_of(given),
        prefix=given.prefix,
        kms_key=given.kms_key,
        subnets=listed(given.subnets),
        security_groups=listed(given.security_groups),
        network_isolation=given.network_isolation,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="transform", description=__doc__)
    add_package(parser)
    parser.add_argument("--input", required=True, metavar="s3://...", help="prefix of the pictures")
    parser.add_argument("--output", required=True, metavar="s3://...", help="where answers go")
    parser.add_argument("--content-type", default="application/x-image", help="of all pictures")
    parser.add_argument("--accept", default="application/json", help="default: %(default)s")
    add_site(parser)
    add_network(parser)
    capacity = parser.add_argument_group("capacity")
    capacity.add_argument("--instance", default="ml.m5.xlarge", help="default: %(default)s")
    capacity.add_argument("--instances", type=int, default=1, help="default: %(default)s")
    capacity.add_argument(
        "--requests-at-once", type=int, default=8, help="per instance; default: %(default)s"
    )
    capacity.add_argument(
        "--max-payload-mb", type=int, default=6, help="of one picture; default: %(default)s"
    )
    return parser


if __name__ == "__main__":
    run(main)
