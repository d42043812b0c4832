"""SageMaker batch transform over images in S3."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import Any

from d2serve.aws.account import Account, connect
from d2serve.aws.api import AwsError, Call
from d2serve.aws.containers import RESPONSE_TIMEOUT_S, container_environment, image_uri
from d2serve.aws.context import NOBODY, Site, find_site, imagined_site
from d2serve.aws.deployment import check_network
from d2serve.aws.options import (
    add_network,
    add_package,
    add_site,
    environment_of,
    listed,
    package_of,
)
from d2serve.aws.resources import (
    delete_model,
    first_upload,
    model_parameters,
    network,
    upload_steps,
)
from d2serve.aws.steps import TRANSFORM_JOBS, Step, carry_out, log_tail, show, take_back, wait_while
from d2serve.building.package import Package
from d2serve.cli.run import run
from d2serve.errors import CommandError

MOST_PAYLOAD_MB = 100  # of all requests at once on an instance, as SageMaker has it
LONGEST_NAME = 40
LONGEST_S = 5 * 24 * 3600.0  # SageMaker ends a job then


@dataclass(frozen=True)
class Job:
    """What `make transform` was asked for.

    Raises:
        CommandError: a value that SageMaker would not take.
    """

    package: Package
    time: datetime
    input: str
    output: str
    instance: str = "ml.m5.xlarge"
    instances: int = 1
    requests_at_once: int = 8  # per instance
    max_payload_mb: int = 6  # of one picture
    content_type: str = "application/x-image"
    accept: str = "application/json"
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: str = "d2serve"
    kms_key: str | None = None
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    network_isolation: bool = False

    def __post_init__(self) -> None:
        check_network(self.subnets, self.security_groups)
        for name, url in (("INPUT", self.input), ("OUTPUT", self.output)):
            if not url.startswith("s3://"):
                raise CommandError(f"{name} {url!r}: an S3 address looks like s3://bucket/prefix/")
        if min(self.instances, self.requests_at_once, self.max_payload_mb) < 1:
            raise CommandError("instances, requests at once and the payload must be 1 or more")
        if self.requests_at_once * self.max_payload_mb > MOST_PAYLOAD_MB:
            raise CommandError(
                f"{self.requests_at_once} requests at once of up to {self.max_payload_mb} MB are "
                f"more than the {MOST_PAYLOAD_MB} MB that SageMaker sends at a time"
            )

    @property
    def name(self) -> str:
        """Of the job and its model: the package's and the time."""
        base = self.package.name.replace("_", "-")[:LONGEST_NAME].strip("-")
        return f"{base}-{self.time:%Y%m%d-%H%M%S}"

    @property
    def package_key(self) -> str:
        """Where the package lies while the job runs."""
        return f"{self.prefix.strip('/')}-transform/{self.name}/{self.package.name}.tar.gz"


def job_steps(account: Account, job: Job, site: Site) -> list[Step]:
    """The model, and the job on it run to its end."""
    settle = partial(_wait, account, job.name)
    return [
        Step(_create_model(job, site), delete_model(job.name)),
        Step(_create_transform_job(job), settle=settle),
    ]


def _create_model(job: Job, site: Site) -> Call:
    container = {
        "Image": image_uri(site.region, job.instance),
        "Environment": container_environment("transform", job.environment),
        "ModelDataUrl": f"s3://{site.bucket}/{job.package_key}",
    }
    networking = network(job.subnets, job.security_groups, job.network_isolation)
    parameters = model_parameters(container, site.role_arn, networking, _tags(job))
    return Call("sagemaker", "create_model", {"ModelName": job.name, **parameters})


def _create_transform_job(job: Job) -> Call:
    output = {"S3OutputPath": job.output, "Accept": job.accept, "AssembleWith": "None"}
    machines: dict[str, Any] = {"InstanceType": job.instance, "InstanceCount": job.instances}
    if job.kms_key:
        output["KmsKeyId"] = job.kms_key
        machines["VolumeKmsKeyId"] = job.kms_key
    parameters = {
        "TransformJobName": job.name,
        "ModelName": job.name,
        "MaxConcurrentTransforms": job.requests_at_once,
        "MaxPayloadInMB": job.max_payload_mb,
        "BatchStrategy": "SingleRecord",
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": RESPONSE_TIMEOUT_S["transform"]},
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": job.input}},
            "ContentType": job.content_type,
            "CompressionType": "None",
            "SplitType": "None",
        },
        "TransformOutput": output,
        "TransformResources": machines,
        "Tags": _tags(job),
    }
    return Call("sagemaker", "create_transform_job", parameters)


def _tags(job: Job) -> list[dict[str, str]]:
    return [{"Key": "created-by", "Value": "d2serve"}, {"Key": "d2serve:job", "Value": job.name}]


def _wait(account: Account, name: str) -> None:
    def look() -> dict[str, Any]:
        return account.ask("sagemaker", "describe_transform_job", TransformJobName=name)

    try:
        busy = ("InProgress", "Stopping")
        seen = wait_while(account, look, "TransformJobStatus", busy, longest_s=LONGEST_S)
    except (KeyboardInterrupt, AwsError):
        account.carry_out(Call("sagemaker", "stop_transform_job", {"TransformJobName": name}))
        raise
    if seen["TransformJobStatus"] != "Completed":
        reason = seen.get("FailureReason", "AWS gives no reason")
        log = log_tail(account, TRANSFORM_JOBS, f"{name}/")
        raise CommandError(f"{name} is {seen['TransformJobStatus']}: {reason}; {log}")


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
